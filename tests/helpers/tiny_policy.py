"""A policy of a few thousand weights, drawn rollouts, and a task that such a policy can learn in a few steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from helpers.group import LastWords
from sgcd.act.environment import InitialMessages, Reply, TaskSuite
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.credit.methods import build_method
from sgcd.credit_records import Credit, Signal
from sgcd.lab import policy as lab
from sgcd.learn.policy.load import Policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.settings import OptimizerSettings, SurrogateSettings
from sgcd.learn.training.context import RunContext
from sgcd.learn.training.gradient import CreditedGroup, GradientAccumulator, LossTerms, accumulate_credited_group
from sgcd.learn.training.optimizer import optimizer_step
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.timers import ModelThread
from sgcd.recipe.schema import Recipe
from sgcd.records import Floats, ParsedTurn, Rollout, Task, Verdict
from sgcd.storage.metrics import OptimizerMetrics
from sgcd.storage.run_folder import RunFolder

CHAT = lab.build_lab_chat()


def model(dtype: torch.dtype = torch.float32, size: int = CHAT.vocab_size, seed: int = 6) -> Any:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen3Config(vocab_size=size, max_position_embeddings=256, tie_word_embeddings=True, **shape, **heads)
    made: Any = Qwen3ForCausalLM(config)
    return made.to(dtype).eval()


def make_context_sensitive(model: Any) -> Any:
    """Scale the weights so that the context changes the logits, as in a trained policy."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed" in name or "v_proj" in name or "o_proj" in name:
                weight *= 0.4 / weight.std()
    return model


def rollout(mask: str, task: str = "t", sibling: int = 0, prompt: int = 3, seed: int = 0, size: int = 50) -> Rollout:
    """A rollout of drawn tokens: the policy wrote where `mask` has an x."""
    draws = np.random.default_rng([seed, sibling, *task.encode()])
    written = np.array([letter == "x" for letter in mask], bool)
    logp = np.where(written, -draws.exponential(size=len(mask)), 0.0).astype(np.float32)
    return Rollout(
        task=task,
        category="action",
        sibling=sibling,
        seed=seed,
        prompt=draws.integers(0, size, prompt).astype(np.int32),
        reference_position=1,
        response=draws.integers(0, size, len(mask)).astype(np.int32),
        response_mask=written,
        token_kinds=np.where(written, 3, 0).astype(np.uint8),
        sampling_logprobs=logp,
        turns=(),
        messages=(),
        tools=(),
        end_reason="answered",
        verdict=Verdict(1.0, True),
    )


@dataclass(frozen=True)
class Example:
    """A rollout whose advantages are known, token by token."""

    rollout: Rollout
    advantage: Floats
    old_logprobs: Floats | None = None
    initial_logprobs: Floats | None = None


def credited(examples: Sequence[Example]) -> CreditedGroup:
    """Such rollouts as the trainer's further updates learn from them."""
    old = [one.old_logprobs for one in examples if one.old_logprobs is not None]
    initial = [one.initial_logprobs for one in examples if one.initial_logprobs is not None]
    terms: LossTerms = {**({"old_logprobs": old} if old else {}), **({"initial_logprobs": initial} if initial else {})}
    signals = [Signal(Credit(0.0, np.ones(len(one.advantage), np.float32)), pull=one.advantage) for one in examples]
    return CreditedGroup(rollouts=[one.rollout for one in examples], signals=signals, terms=terms)


def accumulated(
    policy: Any, batch: Sequence[Example], surrogate: SurrogateSettings, temperature: float, tokens: int
) -> GradientAccumulator:
    """The gradient of a whole batch whose credit is known."""
    gradient = GradientAccumulator(
        model=policy,
        surrogate=surrogate,
        size=BatchSize.of((example.rollout for example in batch), max_tokens=60),
        config=ForwardConfig(temperature, tokens),
    )
    accumulate_credited_group(gradient, credited(batch))
    return gradient


def stepped(
    policy: Any,
    optimizer: Any,
    batch: Sequence[Example],
    settings: OptimizerSettings,
    number: int = 1,
    temperature: float = 1.0,
) -> OptimizerMetrics:
    """One optimiser step on such a batch."""
    return optimizer_step(
        optimizer,
        accumulated(policy, batch, SurrogateSettings(), temperature, settings.micro_batch_tokens or 4096),
        settings,
        number,
    )


class Brevity:
    """A policy that ends its turn in time has succeeded; a fresh one does so every other time."""

    async def open(self, task: Task, seed: int) -> InitialMessages:
        return InitialMessages(
            ({"role": "system", "content": "cabin"}, {"role": "user", "content": task.row["ask"]}), ()
        )

    async def reply(self, turn: ParsedTurn) -> Reply:
        return Reply(done=True)

    async def verify(self) -> Verdict:
        return Verdict(1.0, True, {"parts": [{"reward": 1.0, "turns": 1}]})

    def private(self) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        pass


TASKS = tuple(Task(f"t{number}", "no_action", {"ask": "seat"}) for number in range(9))
STAGE = TaskSuite(Brevity, {"train": TASKS[:6], "dev": TASKS[6:]})


def recipe(**changes: Any) -> Recipe:
    keys: dict[str, Any] = {
        "version": 1,
        "seed": 5,
        "steps": 4,
        "policy": {"start": "lab:plain"},
        "environment": {"name": "lab"},
        "siblings": {"groups": 2, "group_size": 3, "limits": {"turns": 1, "tokens": 60}},
        "sampler": {"slots": 6},
        "method": {"name": "grpo"},
        "optimizer": {"lr": 0.05, "warmup": 2},
        "evaluation": {"every": 2, "trials": 2},
        "checkpoint": {"every": 3},
    }
    return Recipe.model_validate({**keys, **changes})


class Watcher:
    """Records all progress calls."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.rows: list[Any] = []
        self.summaries: list[Any] = []

    def on_phase(self, name: str) -> None:
        self.phases.append(name)

    def on_step(self, row: Any) -> None:
        self.rows.append(row)

    def on_evaluation(self, summary: Any) -> None:
        self.summaries.append(summary)


def method_of(plan: Recipe) -> Any:
    return build_method(plan.method)


def build_context(path: Path, plan: Recipe, stage: TaskSuite = STAGE, policy: Any = None) -> RunContext:
    """A context with a fresh policy; creates the run's folder if there is none."""
    begun = (path / "recipe.yaml").exists()
    if not begun:
        RunFolder.create(path, "version: 1\n", {})
    thread = ModelThread()
    fresh = policy or model()
    with torch.no_grad():
        fresh.get_input_embeddings().weight *= 8
    sampler = TorchSampler(fresh, CHAT, plan.sampler, thread)
    contrast = ReferenceBuilder(LastWords(), CHAT, plan.reference.budget, plan.reference.min_tokens)
    return RunContext(
        task_suite=stage,
        policy=Policy(fresh, CHAT),
        sampler=sampler,
        method=method_of(plan),
        reference_builder=contrast,
        model_thread=thread,
    )
