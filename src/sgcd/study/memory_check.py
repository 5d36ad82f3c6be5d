"""Checks whether a recipe fits the machine's memory and the policy's window, before any weights are read."""

import asyncio
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sgcd.build_tasks import first_prompt_tokens
from sgcd.credit.methods import build_method
from sgcd.errors import PolicyError, RecipeError
from sgcd.learn.policy.load import get_context_window, read_policy_config, resolve_model, select_device
from sgcd.learn.policy.memory_estimate import (
    MemoryEstimate,
    MemoryInputs,
    add_up_memory,
    fit_micro_batches,
    get_available_memory,
)
from sgcd.learn.policy.model_cost import measure_model_cost
from sgcd.learn.scoring.tree_attention import can_branch
from sgcd.learn.settings import MAX_MICRO_BATCH_TOKENS
from sgcd.recipe.schema import Recipe

_MAX_CONVERSATIONS = 2**15
"""More than any batch of a supervised start has."""


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """The memory that a recipe needs, the memory of the machine, and the micro-batches that follow from it."""

    estimate: MemoryEstimate
    inputs: MemoryInputs
    available_bytes: int

    def to_json(self) -> dict[str, Any]:
        limits = {name: getattr(self.inputs, name) for name in ("training_tokens", "scoring_tokens")}
        return {**asdict(self.estimate), "total": self.estimate.total, "machine": self.available_bytes, **limits}

    def describe(self) -> str:
        parts = sorted(asdict(self.estimate).items(), key=lambda part: -part[1])
        parts_text = ", ".join(
            f"{name} {_format_gb(size)}" for name, size in parts if size > 0.02 * self.estimate.total
        )
        return f"about {_format_gb(self.estimate.total)} of {_format_gb(self.available_bytes)} GB: {parts_text}"

    def describe_micro_batches(self, recipe: Recipe) -> str:
        """How many tokens a forward pass reads at once, and where the limits come from."""
        limits = {
            "training": (recipe.optimizer.micro_batch_tokens, self.inputs.training_tokens),
            "scoring": (recipe.scoring.micro_batch_tokens, self.inputs.scoring_tokens),
        }
        return ", ".join(
            f"{name} {limit} tokens ({'by the memory' if given is None else 'by the recipe'})"
            for name, (given, limit) in limits.items()
        )

    def fill_in(self, recipe: Recipe) -> Recipe:
        """The recipe with the limits of its micro-batches."""
        optimizer = recipe.optimizer.model_copy(update={"micro_batch_tokens": self.inputs.training_tokens})
        scoring = recipe.scoring.model_copy(update={"micro_batch_tokens": self.inputs.scoring_tokens})
        return recipe.model_copy(update={"optimizer": optimizer, "scoring": scoring})


def check_memory(recipe: Recipe) -> MemoryFit:
    """An estimate from the policy's config. Refuses a recipe that needs more than the machine has."""
    config, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
    prompt_tokens = asyncio.run(first_prompt_tokens(recipe, chat))
    check_prompt_fits(recipe, config, prompt_tokens)
    memory_fit = fit_to_memory(recipe, config, prompt_tokens)
    if memory_fit.estimate.total > memory_fit.available_bytes:
        raise RecipeError(
            f"this recipe takes {memory_fit.describe()}; it does not fit. Less memory is needed with "
            "policy.lora.rank, policy.gradient_checkpointing, policy.dtype=bfloat16, a smaller "
            "optimizer.micro_batch_tokens, sampler.slots or siblings.limits.tokens"
        )
    return memory_fit


def fit_to_memory(recipe: Recipe, config: Any, prompt_tokens: int, *, longest_row: int = 0) -> MemoryFit:
    """The estimate, with micro-batches as large as the machine's memory has room for where the recipe names no limit.

    `longest_row` is that of conversations, which need not be siblings.
    """
    inputs = build_memory_inputs(recipe, config, prompt_tokens)
    if longest_row:
        inputs = replace(inputs, max_length=longest_row, prompt_tokens=0, group_size=_MAX_CONVERSATIONS)
    cost = measure_model_cost(config, inputs.dtype, inputs.attn_implementation, inputs.lora)
    available_bytes = get_available_memory(select_device(recipe.policy.device).type)
    training, scoring = recipe.optimizer.micro_batch_tokens, recipe.scoring.micro_batch_tokens
    inputs = fit_micro_batches(cost, inputs, available_bytes, training=training, scoring=scoring)
    return MemoryFit(add_up_memory(cost, inputs), inputs, available_bytes)


def build_memory_inputs(recipe: Recipe, config: Any, prompt_tokens: int) -> MemoryInputs:
    """All but the limits of micro-batches that the recipe leaves open."""
    policy, siblings = recipe.policy, recipe.siblings
    needs = build_method(recipe.method).needs
    return MemoryInputs(
        dtype=getattr(torch, policy.dtype),
        attn_implementation=policy.attn_implementation,
        gradient_checkpointing=policy.gradient_checkpointing,
        lora=policy.lora,
        num_slots=recipe.sampler.slots,
        max_length=prompt_tokens + siblings.limits.tokens,
        prompt_tokens=prompt_tokens,
        group_size=siblings.group_size,
        training_tokens=recipe.optimizer.micro_batch_tokens or MAX_MICRO_BATCH_TOKENS,
        scoring_tokens=recipe.scoring.micro_batch_tokens or MAX_MICRO_BATCH_TOKENS,
        logits_bytes=recipe.scoring.logits_bytes,
        shares_prefixes=recipe.scoring.share and can_branch(config, policy.attn_implementation),
        keeps_initial_policy=recipe.surrogate.kl > 0 or bool(needs and needs.needs_model("initial")),
        keeps_average=bool(needs and needs.needs_model("average")),
        has_outside_teacher=bool(needs and needs.needs_model("outside")),
    )


def check_prompt_fits(recipe: Recipe, config: Any, prompt_tokens: int) -> None:
    """Refuse a prompt that leaves no space for a rollout in the policy's window."""
    window, limit = get_context_window(config), recipe.siblings.limits.tokens
    if prompt_tokens + limit > window:
        advice = "lower siblings.limits.tokens" if prompt_tokens < window else "take a policy with a longer window"
        raise PolicyError(
            f"policy: the first task's prompt has {prompt_tokens} tokens and siblings.limits.tokens is {limit}, "
            f"together beyond its window of {window}; {advice}"
        )


def _format_gb(size: int) -> str:
    return f"{size / 1e9:.3g}"
