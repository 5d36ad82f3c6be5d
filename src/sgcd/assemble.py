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

from sgcd.act.environment import Stage
from sgcd.act.rollout import preview, seed_of
from sgcd.act.siblings import Play, play_cohort
from sgcd.chat import Chat
from sgcd.contrast.llm import LanguageModel
from sgcd.contrast.refer import Contrast
from sgcd.contrast.settings import LlmWriter
from sgcd.contrast.write import BuiltIn
from sgcd.credit.methods import Method
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.endpoint.ask import Endpoint
from sgcd.errors import EnvironmentFault, PolicyError
from sgcd.learn.clock import ModelThread
from sgcd.learn.head import examine, head_of
from sgcd.learn.living import Living, Observer
from sgcd.learn.policy import Policy, ready, window_of
from sgcd.learn.rows import enough
from sgcd.learn.sampler import TorchSampler
from sgcd.learn.trainer import Trainer
from sgcd.measure.evaluate import evaluate, held_out, plan
from sgcd.measure.rows import Row
from sgcd.recipe import Recipe
from sgcd.records import Rollout
from sgcd.run import RunFolder
from sgcd.staging import stage_of, user_of

PACKAGES = ("sgcd", "torch", "transformers", "tokenizers", "numpy", "safetensors")


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a recipe stands for, alive."""

    recipe: Recipe
    stage: Stage
    policy: Policy
    sampler: TorchSampler
    method: Method
    contrast: Contrast
    thread: ModelThread
    endpoint: Endpoint | None = None
    """That of the writer, where the method needs references and a model writes them."""
    user: Endpoint | None = None
    """That of the simulated user, where the environment has one."""

    def trainer(self, folder: RunFolder, observer: Observer) -> Trainer:
        alive = (self.stage, self.policy, self.sampler, self.method, self.contrast, self.thread, folder)
        return Trainer(self.recipe, Living(*alive, self.endpoint, self.user), observer)

    def ready(self) -> None:
        """Refuse what would fail at the first call to a model; nothing is called."""
        for endpoint in (self.endpoint, self.user):
            if endpoint:
                endpoint.ready()

    def trials(self) -> int:
        """How many trials one evaluation plays."""
        return len(plan(held_out(self.stage, self.recipe.evaluation), self.recipe.evaluation))

    async def evaluate(self, step: int) -> list[Row]:
        told = self.recipe
        chat, limits = self.policy.chat, told.siblings.limits
        async with self.user.opened() if self.user else nullcontext():
            return await evaluate(self.stage, chat, self.sampler, limits, told.evaluation, told.seed, step)

    async def rehearse(self) -> Rollout:
        """The first training task, played once as training would play it; refused when the machinery breaks.

        No model is called: a simulated user greets and leaves.
        """
        stage, told = stage_of(self.recipe), self.recipe
        task = stage.splits["train"][0]
        play = Play(task, 0, seed_of(told.seed, "rehearsal", task.id))
        chat, limits = self.policy.chat, told.siblings.limits
        [rollout] = await play_cohort([play], stage, chat, self.sampler, limits)
        if rollout.broken:
            raise EnvironmentFault(f"environment: task {task.id} breaks ({rollout.broken}); mend what it names")
        return rollout

    async def check_window(self) -> None:
        fitting(self.recipe, self.policy.model.config, await prompt_of(self.recipe, self.policy.chat))

    def facts(self) -> dict[str, Any]:
        """What it takes to repeat a run, and nothing secret: no environment variables, no paths, no names of people."""
        return {
            "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
            "commit": _commit(),
            "seed": self.recipe.seed,
            "machine": {
                "system": platform.system(),
                "processor": processor(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
            },
            "policy": {"start": self.recipe.policy.start, "parameters": self.parameters},
            "tasks": {split: len(tasks) for split, tasks in self.stage.splits.items()},
            **({"user": {"model": self.user.settings.model}} if self.user else {}),
        }

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.policy.model.parameters())


def assemble(recipe: Recipe, threads: int | None = None) -> Assembly:
    """The living objects of a recipe.

    The number of threads decides the order in which a matrix product adds up, and so its last bits. A run keeps the
    number it was started with: `threads` is the one that its facts name, None takes what torch has chosen.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    user = user_of(recipe)
    stage = stage_of(recipe, user)
    policy = ready(recipe.policy, recipe.seed)
    examine(policy.model)
    enough(head_of(policy.model).size, recipe.scoring.bytes)
    thread = ModelThread()
    sampler = TorchSampler(policy.model, policy.chat, recipe.sampler, thread)
    method, endpoint = method_of(recipe), endpoint_of(recipe)
    writer = LanguageModel(endpoint) if endpoint else BuiltIn()
    contrast = Contrast(writer, policy.chat, recipe.reference.budget, recipe.reference.least)
    return Assembly(recipe, stage, policy, sampler, method, contrast, thread, endpoint if method.needs else None, user)


async def prompt_of(recipe: Recipe, chat: Chat) -> int:
    """Tokens of the first training task's prompt; 0 where it cannot be opened. No model is called."""
    stage = stage_of(recipe)
    task = stage.splits["train"][0]
    seed = seed_of(recipe.seed, "prompt", task.id)
    return await preview(task, stage.environment(), chat, recipe.siblings.limits, seed)


def fitting(recipe: Recipe, config: Any, prompt: int) -> None:
    """Refuse a prompt that leaves the policy no room for a rollout."""
    window = window_of(config)
    limit = recipe.siblings.limits.tokens
    if prompt + limit > window:
        advice = "lower siblings.limits.tokens" if prompt < window else "take a policy with a longer window"
        raise PolicyError(
            f"policy: the first task's prompt has {prompt} tokens and siblings.limits.tokens is {limit}, together "
            f"beyond its window of {window}; {advice}"
        )


def endpoint_of(recipe: Recipe) -> Endpoint | None:
    writer = recipe.reference.writer
    return Endpoint(writer, "reference.writer") if isinstance(writer, LlmWriter) else None


def method_of(recipe: Recipe) -> Method:
    return Sgcd(recipe.method) if isinstance(recipe.method, SgcdSettings) else Grpo()


def moved(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why a run that goes on here may not end the same to the last bit: what has changed since it was started."""
    was = {**then["versions"], "processor": then["machine"]["processor"]}
    here = {**now["versions"], "processor": now["machine"]["processor"]}
    return [
        f"{name} was {was.get(name)} when the run was started and is {value} now: it may not end the same to the bit"
        for name, value in here.items()
        if was.get(name) != value
    ]


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """The commit of sgcd's own sources, with a + when they were changed since; None when they are no checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    return f"{git('rev-parse', 'HEAD')}{'+' if git('status', '--porcelain', '--', '.') else ''}"
