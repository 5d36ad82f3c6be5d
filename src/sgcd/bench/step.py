"""B5: what SGCD adds to a step of GRPO, in forward passes of the teacher over the same rows."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sgcd.bench.timing import at_most, min_cpu_seconds, summarize_cases
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.methods import Method, build_method
from sgcd.credit.settings import GrpoSettings, SgcdSettings
from sgcd.credit.signal_settings import (
    DirectSdSettings,
    OpsdSettings,
    RuleSettings,
    ScopeSettings,
    SdpoSettings,
    UcobSettings,
)
from sgcd.lab import policy as lab
from sgcd.learn.policy.teacher_policies import InitialPolicy, MovingAverage, TeacherPolicies
from sgcd.learn.scoring.forward import pad_batch
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.scoring.teacher import with_teacher_prompt
from sgcd.learn.scoring.teacher_inputs import build_teacher_inputs
from sgcd.learn.training.context import training_forward_config
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.optimizer import build_optimizer, optimizer_step
from sgcd.learn.training.step import credit_and_accumulate
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.recipe.schema import Recipe
from sgcd.records import Group, Reference, Rollout, Task, Turn, Verdict

NUM_GROUPS, GROUP_SIZE, POLICY_TOKENS = 2, 2, 96
CHAT = lab.build_lab_chat()
TURN_TOKENS, OBSERVATION_TOKENS, _PROMPT_TOKENS = 32, 16, 128
TOP_K = 20
CREDIT_METHODS: dict[str, RuleSettings] = {
    "grpo": GrpoSettings(name="grpo"),
    "sgcd": SgcdSettings(name="sgcd", k=TOP_K),
}
IMITATE_METHODS: dict[str, RuleSettings] = {
    "direct_sd": DirectSdSettings(name="direct_sd", k=TOP_K),
    "opsd": OpsdSettings(name="opsd", k=TOP_K),
    "sdpo": SdpoSettings(name="sdpo", k=TOP_K, context="reference"),
    "scope": ScopeSettings(name="scope", k=TOP_K),
    "ucob": UcobSettings(name="ucob", k=TOP_K),
}
"""Every method with a divergence in the loss; the teacher of each reads the same reference."""


def build_small_qwen(vocab_size: int = 32_000) -> Any:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "head_dim": 64}
    heads: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4}
    model: Any = Qwen3ForCausalLM(Qwen3Config(vocab_size=vocab_size, max_position_embeddings=32_768, **shape, **heads))
    return model.eval()


def build_model_of_135m() -> Any:
    """Random weights in the shape of SmolLM2-135M."""
    shape: dict[str, Any] = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    heads: dict[str, Any] = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=49_152, max_position_embeddings=8192, **shape, **heads)
    return LlamaForCausalLM(config)


def build_random_rollout(task: str, sibling: int, num_turns: int) -> Rollout:
    """Turns of the policy, with what it heard between them."""
    rng = np.random.default_rng([sibling, *task.encode()])
    mask = np.tile(np.repeat([True, False], [TURN_TOKENS, OBSERVATION_TOKENS]), num_turns)
    return Rollout(
        task=task,
        category="action",
        sibling=sibling,
        seed=sibling,
        prompt=rng.integers(0, CHAT.vocab_size, _PROMPT_TOKENS).astype(np.int32),
        reference_position=_PROMPT_TOKENS // 2,
        response=rng.integers(0, CHAT.vocab_size, len(mask)).astype(np.int32),
        response_mask=mask,
        token_kinds=np.where(mask, 2, 0).astype(np.uint8),
        sampling_logprobs=np.zeros(len(mask), np.float32),
        turns=tuple(
            Turn(start, start + TURN_TOKENS) for start in range(0, len(mask), TURN_TOKENS + OBSERVATION_TOKENS)
        ),
        messages=({"role": "assistant", "content": ""}, {"role": "tool", "content": ""}) * num_turns,
        tools=(),
        end_reason="answered",
        verdict=Verdict(float(sibling % 2), bool(sibling % 2)),
    )


def build_random_groups(num_groups: int, group_size: int, num_turns: int) -> list[Group]:
    return [
        Group(
            Task(f"t{g}", "action", {}), tuple(build_random_rollout(f"t{g}", s, num_turns) for s in range(group_size))
        )
        for g in range(num_groups)
    ]


def build_bench_recipe(logits_bytes: int = LOGITS_BYTES) -> Recipe:
    settings = {"version": 1, "steps": 1, "policy": {"start": "none"}, "environment": {"name": "lab"}}
    return Recipe.model_validate(
        {**settings, "method": {"name": "grpo"}, "scoring": {"reading_every": 0, "logits_bytes": logits_bytes}}
    )


def build_bench_contrast(recipe: Recipe) -> ReferenceBuilder:
    return ReferenceBuilder(BuiltInWriter(), CHAT, recipe.reference.budget, recipe.reference.min_tokens)


def build_bench_references(groups: list[Group]) -> list[ReferenceResult]:
    text = "\n".join(["Successful attempts call find_user, then get_booking, then get_flight."] * 6)
    return [
        ReferenceResult(g.task.id, Reference(g.task.id, text, "by hand"), "", Literals.from_texts(["b12"]))
        for g in groups
    ]


def build_teacher_rollouts(groups: list[Group]) -> list[Rollout]:
    """The rollouts as the teacher reads them."""
    contrast = build_bench_contrast(build_bench_recipe())
    teacher_inputs = [
        teacher_input
        for group, reference in zip(groups, build_bench_references(groups), strict=True)
        for teacher_input in build_teacher_inputs(group, reference, contrast, 32_768)
    ]
    return [
        with_teacher_prompt(teacher_input) for teacher_input in teacher_inputs if teacher_input.input_ids is not None
    ]


class FixedReferences:
    """References that are there already."""

    def __init__(self, results: list[ReferenceResult]) -> None:
        self._results = {result.task: result for result in results}

    async def get(self, group: Group) -> ReferenceResult:
        return self._results[group.task.id]


def build_teacher_arm(model: Any, groups: list[Group]) -> Callable[[], None]:
    """A forward pass of the teacher over the groups, one by one."""
    teacher_rollouts = [build_teacher_rollouts([group]) for group in groups]

    def run_teacher() -> None:
        with torch.no_grad():
            for group in teacher_rollouts:
                batch = pad_batch(group)
                model(
                    input_ids=batch.input_ids.to(model.device),
                    use_cache=False,
                    logits_to_keep=batch.target_mask.any(0).nonzero().squeeze(-1).to(model.device),
                )

    return run_teacher


def build_step_arms(
    model: Any,
    num_groups: int,
    group_size: int,
    num_tokens: int,
    logits_bytes: int = LOGITS_BYTES,
    *,
    methods: Mapping[str, RuleSettings] = CREDIT_METHODS,
) -> tuple[dict[str, Callable[[], None]], int]:
    """A step of each method and a forward pass of the teacher over the same rollouts; and how many tokens they have."""
    random_groups = build_random_groups(num_groups, group_size, num_tokens // TURN_TOKENS)
    recipe = build_bench_recipe(logits_bytes)
    optimizer = build_optimizer(model, recipe.optimizer)
    timer = StepTimer(ModelThread(), ignore_phase)
    arms = {
        name: build_step(model, random_groups, settings, recipe=recipe, optimizer=optimizer, timer=timer)
        for name, settings in methods.items()
    } | {"teacher": build_teacher_arm(model, random_groups)}
    rollouts = [rollout for group in random_groups for rollout in group.rollouts]
    return arms, BatchSize.of(rollouts).num_tokens


def build_step(
    model: Any,
    groups: list[Group],
    settings: RuleSettings,
    *,
    recipe: Recipe,
    optimizer: Any,
    timer: StepTimer,
    contrast: ReferenceBuilder | None = None,
) -> Callable[[], None]:
    """A step of a method on these groups, whose references are there already."""
    references: Any = FixedReferences(build_bench_references(groups))
    reference_builder = contrast or build_bench_contrast(recipe)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    method = build_method(settings)
    policies = build_teacher_policies(method, model, recipe.teacher.decay)

    def run_step() -> None:
        accumulator = GradientAccumulator(
            model=model,
            surrogate=recipe.surrogate,
            size=BatchSize.of(rollouts),
            config=training_forward_config(recipe),
        )
        asyncio.run(
            credit_and_accumulate(
                1,
                groups,
                references=references,
                accumulator=accumulator,
                config=recipe,
                method=method,
                reference_builder=reference_builder,
                timer=timer,
                policies=policies,
            )
        )
        with timer.phase("update"):
            optimizer_step(optimizer, accumulator, recipe.optimizer, 1)

    return run_step


def build_teacher_policies(method: Method, model: Any, decay: float) -> TeacherPolicies:
    """The models that the method's teachers are, besides the policy itself."""
    teachers = {teacher.model for teacher in method.needs.teachers} if method.needs else set[str]()
    return TeacherPolicies(
        initial=InitialPolicy(model) if "initial" in teachers else None,
        average=MovingAverage(model, decay) if "average" in teachers else None,
    )


def ignore_phase(_: str) -> None:
    """The clock tells nobody."""


def teacher_overhead(seconds: dict[str, float]) -> float:
    """What SGCD adds to a step, in forward passes of the teacher."""
    return (seconds["sgcd"] - seconds["grpo"]) / seconds["teacher"]


def measure_overhead(rounds: int) -> dict[str, Any]:
    arms = build_step_arms(build_small_qwen(), NUM_GROUPS, GROUP_SIZE, POLICY_TOKENS)[0]
    seconds = min_cpu_seconds({name: arms[name] for name in ("grpo", "sgcd", "teacher")}, rounds)
    case = at_most("random Qwen3, 4 layers, hidden 512, vocabulary 32,000", teacher_overhead(seconds), 1.15)
    return {"B5": summarize_cases("(step of SGCD - step of GRPO) over one forward pass of the teacher", [case])}
