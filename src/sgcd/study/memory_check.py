"""Checks whether a recipe fits the machine's memory and the policy's window, before any weights are read."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sgcd.build_tasks import first_prompt_tokens
from sgcd.credit.methods import build_method
from sgcd.errors import PolicyError, RecipeError
from sgcd.learn.policy.load import get_context_window, read_policy_config, resolve_model, select_device
from sgcd.learn.policy.memory_estimate import MemoryEstimate, MemoryInputs, estimate_memory, get_available_memory
from sgcd.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """The memory that a recipe needs, and the memory of the machine."""

    estimate: MemoryEstimate
    available_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.estimate), "total": self.estimate.total, "machine": self.available_bytes}

    def describe(self) -> str:
        parts = sorted(asdict(self.estimate).items(), key=lambda part: -part[1])
        parts_text = ", ".join(
            f"{name} {_format_gb(size)}" for name, size in parts if size > 0.02 * self.estimate.total
        )
        return f"about {_format_gb(self.estimate.total)} of {_format_gb(self.available_bytes)} GB: {parts_text}"


def check_memory(recipe: Recipe) -> MemoryFit:
    """An estimate from the policy's config. Refuses a recipe that needs more than the machine has."""
    config, chat = read_policy_config(resolve_model(recipe.policy.start), recipe.policy.tool_instruction)
    prompt_tokens = asyncio.run(first_prompt_tokens(recipe, chat))
    check_prompt_fits(recipe, config, prompt_tokens)
    memory_fit = MemoryFit(
        estimate_memory(config, build_memory_inputs(recipe, prompt_tokens)),
        get_available_memory(select_device(recipe.policy.device).type),
    )
    if memory_fit.estimate.total > memory_fit.available_bytes:
        raise RecipeError(
            f"this recipe takes {memory_fit.describe()}; it does not fit. Less memory is needed with "
            "policy.lora.rank, policy.gradient_checkpointing, policy.dtype=bfloat16, a smaller "
            "optimizer.micro_batch_tokens, sampler.slots or siblings.limits.tokens"
        )
    return memory_fit


def build_memory_inputs(recipe: Recipe, prompt_tokens: int) -> MemoryInputs:
    policy, siblings = recipe.policy, recipe.siblings
    needs = build_method(recipe.method).needs
    return MemoryInputs(
        dtype=getattr(torch, policy.dtype),
        attn_implementation=policy.attn_implementation,
        gradient_checkpointing=policy.gradient_checkpointing,
        lora=policy.lora,
        num_slots=recipe.sampler.slots,
        max_length=prompt_tokens + siblings.limits.tokens,
        group_size=siblings.group_size,
        training_tokens=recipe.optimizer.micro_batch_tokens,
        scoring_tokens=recipe.scoring.micro_batch_tokens,
        logits_bytes=recipe.scoring.logits_bytes,
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
