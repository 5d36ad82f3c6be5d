"""Whether a recipe fits the machine, known before any weights are read."""

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sgcd.errors import RecipeError
from sgcd.recipe.schema import Recipe

if TYPE_CHECKING:
    from sgcd.learn.policy.memory_estimate import MemoryEstimate, MemoryInputs


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """What a recipe takes, and what there is."""

    estimate: "MemoryEstimate"
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
    """An estimate from the config; refused when it is more than the machine has."""
    from sgcd.assemble import check_prompt_fits, first_prompt_tokens
    from sgcd.learn.policy.load import read_policy_config, select_device
    from sgcd.learn.policy.memory_estimate import estimate_memory, get_available_memory
    from sgcd.learn.policy.resolve import resolve_model

    config, chat = read_policy_config(resolve_model(recipe.policy.start))
    prompt_tokens = asyncio.run(first_prompt_tokens(recipe, chat))
    check_prompt_fits(recipe, config, prompt_tokens)
    memory_fit = MemoryFit(
        estimate_memory(config, build_memory_inputs(recipe, prompt_tokens)),
        get_available_memory(select_device(recipe.policy.device).type),
    )
    if memory_fit.estimate.total > memory_fit.available_bytes:
        raise RecipeError(
            f"this recipe takes {memory_fit.describe()}; it does not fit. Less takes policy.lora.rank, "
            "policy.gradient_checkpointing, "
            "policy.dtype=bfloat16, a smaller optimizer.micro_batch_tokens, sampler.slots or siblings.limits.tokens"
        )
    return memory_fit


def build_memory_inputs(recipe: Recipe, prompt_tokens: int) -> "MemoryInputs":
    import torch

    from sgcd.learn.policy.memory_estimate import MemoryInputs

    policy, siblings = recipe.policy, recipe.siblings
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
        has_kl_term=recipe.surrogate.kl > 0,
    )


def _format_gb(size: int) -> str:
    return f"{size / 1e9:.3g}"
