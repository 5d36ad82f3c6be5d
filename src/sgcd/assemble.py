"""From a recipe to living objects: the only place where everything meets."""

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sgcd.act.environment import TaskSuite
from sgcd.act.rollout import count_prompt_tokens
from sgcd.act.siblings import RolloutSpec, play_cohort
from sgcd.build_tasks import build_task_suite, build_user_endpoint
from sgcd.chat import Chat
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.settings import LlmWriterSettings
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.contrast.writers.llm import LanguageModelWriter
from sgcd.credit.methods import Method
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.endpoint.client import Endpoint
from sgcd.errors import EnvironmentFault, PolicyError
from sgcd.learn.policy.head import check_head, get_head
from sgcd.learn.policy.load import Policy, get_context_window, load_trainable_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.scoring.logits.chunks import check_logits_bytes
from sgcd.learn.training.context import RunContext, TrainerCallback
from sgcd.learn.training.timers import ModelThread
from sgcd.learn.training.trainer import Trainer
from sgcd.measure.evaluate import evaluate_policy_tasks, held_out_tasks, list_trials
from sgcd.measure.trial_rows import TrialRow
from sgcd.recipe.schema import Recipe
from sgcd.records import Rollout
from sgcd.seeds import derive_seed
from sgcd.storage.run_folder import RunFolder

_REPORTED_PACKAGES = ("sgcd", "torch", "transformers", "tokenizers", "numpy", "safetensors")


@dataclass(frozen=True, slots=True)
class AssembledRun:
    """What a recipe stands for, alive."""

    recipe: Recipe
    task_suite: TaskSuite
    policy: Policy
    sampler: TorchSampler
    method: Method
    reference_builder: ReferenceBuilder
    model_thread: ModelThread
    writer_endpoint: Endpoint | None = None
    """That of the writer, where the method needs references and a model writes them."""
    user_endpoint: Endpoint | None = None
    """That of the simulated user, where the environment has one."""

    def trainer(self, folder: RunFolder, observer: TrainerCallback) -> Trainer:
        parts = (
            self.task_suite,
            self.policy,
            self.sampler,
            self.method,
            self.reference_builder,
            self.model_thread,
            folder,
        )
        return Trainer(self.recipe, RunContext(*parts, self.writer_endpoint, self.user_endpoint), observer)

    def check_ready(self) -> None:
        """Refuse what would fail at the first call to a model; nothing is called."""
        for endpoint in (self.writer_endpoint, self.user_endpoint):
            if endpoint:
                endpoint.check_ready()

    def num_trials(self) -> int:
        """How many trials one evaluation plays."""
        return len(list_trials(held_out_tasks(self.task_suite, self.recipe.evaluation), self.recipe.evaluation))

    async def evaluate(self, step: int) -> list[TrialRow]:
        recipe = self.recipe
        chat, limits = self.policy.chat, recipe.siblings.limits
        async with self.user_endpoint.connect() if self.user_endpoint else nullcontext():
            return await evaluate_policy_tasks(
                self.task_suite, chat, self.sampler, limits, recipe.evaluation, recipe.seed, step
            )

    async def rehearse(self) -> Rollout:
        """The first training task, played once as training would play it; refused when the machinery breaks.

        No model is called: a simulated user greets and leaves.
        """
        task_suite, recipe = build_task_suite(self.recipe), self.recipe
        task = task_suite.splits["train"][0]
        spec = RolloutSpec(task, 0, derive_seed(recipe.seed, "rehearsal", task.id))
        chat, limits = self.policy.chat, recipe.siblings.limits
        [rollout] = await play_cohort([spec], task_suite, chat, self.sampler, limits)
        if rollout.broken:
            raise EnvironmentFault(f"environment: task {task.id} breaks ({rollout.broken}); mend what it names")
        return rollout

    async def check_window(self) -> None:
        check_prompt_fits(
            self.recipe, self.policy.model.config, await first_prompt_tokens(self.recipe, self.policy.chat)
        )

    def collect_facts(self) -> dict[str, Any]:
        """What it takes to repeat a run, and nothing secret: no environment variables, no paths, no names of people."""
        return {
            "versions": {
                "python": platform.python_version(),
                **{name: package_version(name) for name in _REPORTED_PACKAGES},
            },
            "commit": _source_commit(),
            "seed": self.recipe.seed,
            "machine": {
                "system": platform.system(),
                "processor": processor_name(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
            },
            "policy": {"start": self.recipe.policy.start, "parameters": self.num_parameters},
            "tasks": {split: len(tasks) for split, tasks in self.task_suite.splits.items()},
            **({"user": {"model": self.user_endpoint.settings.model}} if self.user_endpoint else {}),
        }

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.policy.model.parameters())


def assemble(recipe: Recipe, threads: int | None = None) -> AssembledRun:
    """The living objects of a recipe.

    The number of threads decides the order in which a matrix product adds up, and so its last bits. A run keeps the
    number it was started with: `threads` is the one that its facts name, None takes what torch has chosen.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    user_endpoint = build_user_endpoint(recipe)
    task_suite = build_task_suite(recipe, user_endpoint)
    policy = load_trainable_policy(recipe.policy, recipe.seed)
    check_head(policy.model)
    check_logits_bytes(get_head(policy.model).vocab_size, recipe.scoring.logits_bytes)
    thread = ModelThread()
    sampler = TorchSampler(policy.model, policy.chat, recipe.sampler, thread)
    method, endpoint = build_method(recipe), build_writer_endpoint(recipe)
    writer = LanguageModelWriter(endpoint) if endpoint else BuiltInWriter()
    contrast = ReferenceBuilder(writer, policy.chat, recipe.reference.budget, recipe.reference.min_tokens)
    return AssembledRun(
        recipe, task_suite, policy, sampler, method, contrast, thread, endpoint if method.needs else None, user_endpoint
    )


async def first_prompt_tokens(recipe: Recipe, chat: Chat) -> int:
    """Tokens of the first training task's prompt; 0 where it cannot be opened. No model is called."""
    task_suite = build_task_suite(recipe)
    task = task_suite.splits["train"][0]
    seed = derive_seed(recipe.seed, "prompt", task.id)
    return await count_prompt_tokens(task, task_suite.environment_factory(), chat, recipe.siblings.limits, seed)


def check_prompt_fits(recipe: Recipe, config: Any, prompt_tokens: int) -> None:
    """Refuse a prompt that leaves the policy no room for a rollout."""
    window = get_context_window(config)
    limit = recipe.siblings.limits.tokens
    if prompt_tokens + limit > window:
        advice = "lower siblings.limits.tokens" if prompt_tokens < window else "take a policy with a longer window"
        raise PolicyError(
            f"policy: the first task's prompt has {prompt_tokens} tokens and siblings.limits.tokens is {limit}, "
            "together "
            f"beyond its window of {window}; {advice}"
        )


def build_writer_endpoint(recipe: Recipe) -> Endpoint | None:
    writer = recipe.reference.writer
    return Endpoint(writer, "reference.writer") if isinstance(writer, LlmWriterSettings) else None


def build_method(recipe: Recipe) -> Method:
    return Sgcd(recipe.method) if isinstance(recipe.method, SgcdSettings) else Grpo()


def environment_changes(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Why a run that goes on here may not end the same to the last bit: what has changed since it was started."""
    recorded_versions = {**recorded["versions"], "processor": recorded["machine"]["processor"]}
    current_versions = {**current["versions"], "processor": current["machine"]["processor"]}
    return [
        f"{name} was {recorded_versions.get(name)} when the run was started and is {value} now: it may not end the "
        "same to the bit"
        for name, value in current_versions.items()
        if recorded_versions.get(name) != value
    ]


def package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _source_commit() -> str | None:
    """The commit of sgcd's own sources, with a + when they were changed since; None when they are no checkout."""
    this_file = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            process = subprocess.run(
                ["git", "-C", str(this_file.parent), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return process.stdout.strip() if process.returncode == 0 else None

    if git("ls-files", "--error-unmatch", this_file.name) is None:
        return None
    return f"{git('rev-parse', 'HEAD')}{'+' if git('status', '--porcelain', '--', '.') else ''}"
