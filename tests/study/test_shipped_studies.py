"""The studies that ship with sgcd can be run: their arms have recipes, and the family is complete."""

import re
from pathlib import Path

import pytest

from sgcd.credit.method_table import list_methods
from sgcd.recipe.load import shipped_path
from sgcd.study.arms.plan import StudyPlan, check_arms
from sgcd.study.arms.study_file import load_study

ROOT = Path(__file__).resolve().parents[2]
STUDIES = [shipped_path(f"studies/{name}.yaml") for name in ("control", "family")]
WITHOUT_ARM = {"own", "by_turn"}
"""A class of one's own, and a method that needs verdicts of parts."""


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_study_has_arms_that_differ_in_their_method_alone(path: Path, tmp_path: Path) -> None:
    plan = StudyPlan(load_study(path), path, tmp_path)
    check_arms(plan)
    assert plan.study.compare_with == ("grpo",)


def test_the_file_in_the_docs_is_a_study(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/study.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "study.yaml").write_text(text)
    plan = StudyPlan(load_study(tmp_path / "study.yaml"), ROOT / "study.yaml", tmp_path)
    check_arms(plan)
    assert len(plan.tuning_runs()) == 2 * 6 * 3


def test_the_family_has_an_arm_for_every_method() -> None:
    arms = load_study(shipped_path("studies/family.yaml")).arms
    assert {keys["method"]["name"] for keys in arms.values()} == {row["method"] for row in list_methods()} - WITHOUT_ARM
