"""Whether a recipe fits the machine, known before any weights are read."""

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sgcd.errors import RecipeError
from sgcd.recipe import Recipe

if TYPE_CHECKING:
    from sgcd.learn.memory import Need, Work


@dataclass(frozen=True, slots=True)
class Fit:
    """What a recipe takes, and what there is."""

    need: "Need"
    there: int

    def plain(self) -> dict[str, Any]:
        return {**asdict(self.need), "total": self.need.total, "machine": self.there}

    def words(self) -> str:
        parts = sorted(asdict(self.need).items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {_gb(size)}" for name, size in parts if size > 0.02 * self.need.total)
        return f"about {_gb(self.need.total)} of {_gb(self.there)} GB: {told}"


def fit(recipe: Recipe) -> Fit:
    """An estimate from the config; refused when it is more than the machine has."""
    from sgcd.assemble import fitting, prompt_of
    from sgcd.learn.locate import locate
    from sgcd.learn.memory import memory_of, need
    from sgcd.learn.policy import device_of, survey

    config, chat = survey(locate(recipe.policy.start))
    prompt = asyncio.run(prompt_of(recipe, chat))
    fitting(recipe, config, prompt)
    found = Fit(need(config, work_of(recipe, prompt)), memory_of(device_of(recipe.policy.device).type))
    if found.need.total > found.there:
        raise RecipeError(
            f"this recipe takes {found.words()}; it does not fit. Less takes policy.lora.rank, policy.checkpointing, "
            "policy.dtype=bfloat16, a smaller optimizer.tokens, sampler.slots or siblings.limits.tokens"
        )
    return found


def work_of(recipe: Recipe, prompt: int) -> "Work":
    import torch

    from sgcd.learn.memory import Work

    policy, siblings = recipe.policy, recipe.siblings
    return Work(
        dtype=getattr(torch, policy.dtype),
        attention=policy.attention,
        checkpointing=policy.checkpointing,
        lora=policy.lora,
        slots=recipe.sampler.slots,
        length=prompt + siblings.limits.tokens,
        rows=siblings.size,
        training_tokens=recipe.optimizer.tokens,
        scoring_tokens=recipe.scoring.tokens,
        logits=recipe.scoring.bytes,
        kl=recipe.surrogate.kl > 0,
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g}"
