"""Every ablation of the study file is a recipe that trains."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sgcd.cli import main
from sgcd.recipe.load import load_recipe
from sgcd.storage.run_folder import RunFolder
from sgcd.study.arms.plan import StudyPlan
from sgcd.study.arms.study_file import load_study

PATH = Path(__file__).resolve().parents[2] / "studies/ablations.yaml"
STUDY = load_study(PATH)
SMALL = (
    "steps=1",
    "siblings={groups: 2, group_size: 6, rounds: 4, limits: {turns: 8, tokens: 224}}",
    "evaluation.every=9",
    "evaluation.tasks=4",
    "evaluation.trials=1",
)


def overrides() -> Iterator[tuple[str, tuple[str, ...]]]:
    plan = StudyPlan(STUDY, PATH, Path("runs"))
    for run in plan.fresh_runs({}):
        if run.seed == STUDY.seeds[0]:
            yield run.arm, run.overrides


ARMS = dict(overrides())


def test_no_two_arms_are_the_same_recipe() -> None:
    recipes = {arm: load_recipe(PATH.parent / STUDY.recipe, keys) for arm, keys in ARMS.items()}
    same = {"published-scale": "sgcd"}
    seen: dict[str, str] = {}
    for arm, recipe in recipes.items():
        first = seen.setdefault(recipe.model_dump_json(), arm)
        assert first == arm or same.get(arm) == first, f"{arm} is {first}"


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_each_arm_trains_a_step(arm: str, tmp_path: Path) -> None:
    keys = [*ARMS[arm], *SMALL]
    assert main(["train", str(PATH.parent / STUDY.recipe), *keys, "--run", str(tmp_path / "run")]) == 0
    [row] = RunFolder.open(tmp_path / "run").read_metrics()
    assert row.updates == 1 and row.grad_norm and not [reason for reason in row.invalid if "inert" not in reason]
