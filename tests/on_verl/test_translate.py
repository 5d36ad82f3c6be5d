"""A recipe in verl's words, and what has none there; verl itself is not needed."""

from pathlib import Path

import pytest

from sgcd.errors import RecipeError
from sgcd.recipe.load import load_recipe
from sgcd.verl.translate import check_counterparts, list_no_counterpart, translate

LAB = Path("recipes/lab/sgcd.yaml")


def test_what_a_recipe_says_is_said_to_verl():
    recipe = load_recipe(
        LAB,
        [
            "engine=verl",
            "surrogate={preset: dapo, overlong: null, kl: 0.01, kl_estimate: k2}",
            "verl={nodes: 2, gpus: 4, prompt_tokens: 1000, keys: {trainer.device: cpu}}",
        ],
    )
    values = translate(recipe, "model", "recipe.yaml", "run")
    expected = {
        "trainer.nnodes": 2,
        "trainer.n_gpus_per_node": 4,
        "trainer.total_training_steps": 40,
        "data.train_batch_size": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.rollout.n": 8,
        "actor_rollout_ref.rollout.max_model_len": 1224,
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "actor_rollout_ref.actor.kl_loss_type": "mse",
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.grad_clip": 0.3,
        "algorithm.adv_estimator": "grpo",
        "trainer.val_before_train": True,
        "trainer.test_freq": 20,
        "trainer.device": "cpu",
        "+sgcd.recipe": "recipe.yaml",
    }
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["control=permuted"], "control=permuted: expected none"),
        (["surrogate={ratio: none}"], "surrogate.ratio=none"),
        (["surrogate={trust_region: dppo_tv}", "optimizer.updates=2"], "surrogate.trust_region=dppo_tv: expected clip"),
        (["surrogate={preset: dapo}"], "surrogate.overlong: expected null"),
        (["surrogate={baseline: leave_one_out}"], "surrogate.scale_by_std=true with baseline=leave_one_out"),
        (["method={name: sdpo}"], "method.name=sdpo: it imitates a teacher in the loss"),
        (["method={name: opd, teacher: initial}"], "method.name=opd: its teacher is another model"),
        (["method={name: contrast_pair}"], "method.name=contrast_pair: it compares two teachers"),
    ],
)
def test_what_has_no_counterpart_is_named_and_refused(keys: list[str], problem: str) -> None:
    recipe = load_recipe(LAB, ["engine=verl", *keys])
    assert any(found.startswith(problem) for found in list_no_counterpart(recipe)), list_no_counterpart(recipe)
    with pytest.raises(RecipeError, match="engine=verl has no counterpart of"):
        check_counterparts(recipe)


def test_the_presets_that_have_one_are_taken():
    for preset in ("grpo", "grpo_kl", "dr_grpo", "gspo", "loop"):
        assert list_no_counterpart(load_recipe(LAB, ["engine=verl", f"surrogate.preset={preset}"])) == []


@pytest.mark.parametrize("name", ["airline", "appworld", "bfcl", "textworld"])
def test_the_papers_recipes_and_those_of_the_benchmarks_are_taken_as_they_are(name: str) -> None:
    recipe = load_recipe(Path(f"recipes/{name}/sgcd.yaml"), ["engine=verl"])
    assert list_no_counterpart(recipe) == []


@pytest.mark.parametrize("path", sorted(Path("recipes/verl").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_for_one_eight_and_sixty_four_gpus_have_counterparts(path: Path) -> None:
    recipe = load_recipe(path)
    assert list_no_counterpart(recipe) == []
    assert recipe.verl.nodes * recipe.verl.gpus == int(path.stem.removeprefix("gpus-"))
    values = translate(recipe, "model", "recipe.yaml", "run")
    assert values["actor_rollout_ref.model.use_remove_padding"] is True
