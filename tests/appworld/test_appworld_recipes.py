"""The AppWorld recipes have the values of the paper's Table 3 (2606.12634), as far as there are keys for them."""

from pathlib import Path
from typing import Any

import pytest

from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe, recipe_differences
from sgcd.settings import flatten_mapping

FOLDER = Path(__file__).parents[2] / "recipes/appworld"
ARMS = ("grpo", "sgcd", "sdpo")
TABLE_3: dict[str, tuple[str, Any]] = {
    "policy.start": ("Base model", "Qwen/Qwen3.5-4B"),
    "policy.lora.rank": ("all weights", 0),
    "siblings.group_size": ("Rollouts per prompt (n)", 8),
    "siblings.groups": ("Train / mini-batch", 8),
    "optimizer.updates": ("PPO epochs, and mini-batches of a batch", 1),
    "optimizer.lr": ("Learning rate", 1e-6),
    "siblings.limits.tokens": ("Max response", 16_384),
    "siblings.limits.turns": ("Max user / assistant turns, and steps per task", 30),
    "siblings.limits.observation": ("Max observation", 12_000),
    "sampler.temperature": ("Rollout temp. (train)", 1.0),
    "sampler.top_p": ("Rollout top-p (train)", 1.0),
    "evaluation.temperature": ("Rollout temp. (val)", 1.0),
    "evaluation.greedy": ("Decoding (eval)", True),
    "evaluation.split": ("dev", "dev"),
    "steps": ("the run of Figure 3", 240),
}
"""Prompt and model length, thinking, GPUs and the top-p of validation are no keys of a recipe."""


def arm(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", ARMS)
def test_the_values_are_those_of_table_3(name: str) -> None:
    values = flatten_mapping(arm(name).model_dump(by_alias=True))
    assert {key: values[key] for key in TABLE_3} == {key: value for key, (_, value) in TABLE_3.items()}


def test_the_arms_differ_in_the_credit_signal_alone() -> None:
    def differing(first: str, second: str) -> set[str]:
        return {change.key.partition(".")[0] for change in recipe_differences(arm(first), arm(second))}

    assert differing("grpo", "sgcd") == {"method", "reference"}
    assert differing("grpo", "sdpo") == {"method"}


def test_sgcd_and_sdpo_are_the_published_rules() -> None:
    sgcd, sdpo = arm("sgcd").method.model_dump(), arm("sdpo").method.model_dump()
    published = {"divergence": "reverse_kl", "gamma": 1.0, "cap": 2.0, "floor": 1.0, "compare_with": "student"}
    assert sgcd | published | {"min_entropy": 0, "require_reading": False} == sgcd
    published = {"divergence": "jsd", "k": 100, "support": "student", "teacher": "average", "context": "sibling"}
    assert sdpo | published | {"coefficient": 1, "reward_coefficient": 0} == sdpo
