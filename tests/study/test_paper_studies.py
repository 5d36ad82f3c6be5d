"""The studies of the paper's tables: each arm is a recipe, and each has the trials that its difference needs."""

import runpy
from pathlib import Path

import pytest

from sgcd.recipe.load import load_recipe
from sgcd.study.arms.plan import StudyPlan, check_arms
from sgcd.study.arms.study_file import load_study

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "studies/paper"
NEEDED = {
    "table1": (0.456, 0.429, 168),
    "table2": (0.602, 0.583, 20),
    "table6": (0.456, 0.440, 168),
    "table8": (0.158, 0.011, 168),
}
"""The smallest difference of a table on the split that is evaluated, and its tasks."""


@pytest.mark.parametrize("name", NEEDED)
def test_every_arm_is_a_recipe_with_enough_trials(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.yaml"
    study = load_study(path)
    plan = StudyPlan(study, path, tmp_path)
    check_arms(plan)
    recipes = {
        run.arm: load_recipe(path.parent / study.recipe, list(run.overrides))
        for run in plan.fresh_runs({})
        if run.seed == study.seeds[0]
    }
    assert [*recipes] == study.arm_names()
    assert len({recipe.model_dump_json() for recipe in recipes.values()}) == len(recipes)
    first, second, tasks = NEEDED[name]
    needed = runpy.run_path(str(ROOT / "docs/write_results.py"))["trials_needed"](first, second)
    assert {recipe.evaluation.trials for recipe in recipes.values()} == {-(-needed // tasks)}
