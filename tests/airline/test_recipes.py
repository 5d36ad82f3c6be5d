"""The airline recipes have the values of the paper's Table 4 (2606.12634), as far as there are keys for them."""

from pathlib import Path
from typing import Any

import pytest

from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe, recipe_differences
from sgcd.settings import flatten_mapping

FOLDER = Path(__file__).parents[2] / "recipes/airline"
ARMS = ("grpo_kl", "sgcd", "sdpo")
TABLE_4: dict[str, tuple[str, Any]] = {
    "siblings.group_size": ("Rollouts per prompt (n)", 8),
    "siblings.groups": ("Train / mini-batch", 8),
    "optimizer.updates": ("PPO epochs, and mini-batches of a batch", 1),
    "optimizer.lr": ("Learning rate", 1e-6),
    "siblings.limits.tokens": ("Max response", 16_384),
    "siblings.limits.turns": ("Max user / assistant turns", 16),
    "siblings.limits.observation": ("Max chars / observation", 512),
    "sampler.temperature": ("Rollout temp. (train)", 0.4),
    "sampler.top_p": ("Rollout top-p (train) and (val)", 0.95),
    "evaluation.temperature": ("Rollout temp. (val)", 0.4),
    "evaluation.greedy": ("Decoding (eval)", True),
    "environment.domain": ("Domain", "airline"),
    "evaluation.split": ("held-out split, 20 tasks", "test"),
}
"""Prompt and model length, thinking and GPUs are no keys of a recipe."""


def arm(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", ARMS)
def test_the_values_are_those_of_table_4(name: str) -> None:
    values = flatten_mapping(arm(name).model_dump(by_alias=True))
    assert {key: values[key] for key in TABLE_4} == {key: value for key, (_, value) in TABLE_4.items()}


def test_the_arms_differ_in_the_credit_signal_alone() -> None:
    def differing(first: str, second: str) -> set[str]:
        return {change.key.partition(".")[0] for change in recipe_differences(arm(first), arm(second))}

    assert differing("grpo_kl", "sgcd") == {"method", "reference"}
    assert differing("sgcd", "sdpo") == {"method", "steps", "reference"}
    assert arm("grpo_kl").surrogate.kl > 0


def test_sgcd_is_the_published_rule() -> None:
    method = arm("sgcd").method.model_dump()
    published = {"divergence": "reverse_kl", "gamma": 1.0, "cap": 2.0, "floor": 1.0, "compare_with": "student"}
    assert method | published | {"min_entropy": 0, "require_reading": False} == method


def test_sdpo_is_the_published_rule() -> None:
    method = arm("sdpo").method.model_dump()
    published = {"divergence": "jsd", "k": 100, "support": "student", "teacher": "average", "context": "sibling"}
    assert method | published | {"coefficient": 1, "reward_coefficient": 0} == method


def test_the_supervised_start_is_the_paper_s_and_plays_as_the_arms_do() -> None:
    start = arm("sft")
    assert start.supervised is not None
    published = {"epochs": 2, "batch_size": 8, "window": 32_768, "lr": 1e-5, "warmup": 0}
    assert start.supervised.model_dump() | published == start.supervised.model_dump()
    assert (start.policy.start, start.policy.lora.rank) == ("Qwen/Qwen3.5-4B", 0)
    for name in ARMS:
        assert arm(name).policy.start == "runs/airline-sft/checkpoints/0800"
        assert arm(name).environment == start.environment
        assert arm(name).siblings.limits == start.siblings.limits
