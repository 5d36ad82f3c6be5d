"""sgcd study: what it refuses, in one line each, before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from sgcd.cli import main
from sgcd.study.arms.freeze import freeze
from sgcd.study.arms.plan import StudyPlan
from sgcd.study.arms.study_file import load_study

RECIPE = Path(__file__).parents[2] / "recipes/lab/grpo.yaml"
Capture = pytest.CaptureFixture[str]


def write_study(folder: Path, **changes: Any) -> Path:
    """A study of two arms and two seeds, with keys of its file changed; JSON is YAML."""
    study = {
        "version": 1,
        "title": "Small",
        "recipe": str(RECIPE),
        "arms": {"grpo": {}, "entropy": {"method": {"name": "entropy"}}},
        "compare_with": ["grpo"],
        "permuted": ["grpo"],
        "seeds": [1, 2],
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps({key: value for key, value in {**study, **changes}.items() if value is not None}))
    return path


def refusal(capsys: Capture, path: Path) -> str:
    assert main(["study", str(path), "--runs", str(path.parent / "runs")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": None}, "seeds: missing"),
        ({"seeds": [1, -2]}, "seeds.1: input should be greater than or equal to 0, got -2"),
        ({"seeds": [1, 2, 1]}, "seeds: 1 is used twice; expected fresh seeds, each once"),
        ({"tuning": {"seeds": [2], "grid": {"optimizer.lr": [1e-3]}}}, "seeds: 2 is used twice"),
        ({"compare_with": ["gpro"]}, "compare_with: no arm gpro; expected one of grpo, grpo-permuted, entropy"),
        ({"permuted": ["grpo-permuted"]}, "permuted: no arm grpo-permuted; expected one of grpo, entropy"),
        ({"arms": {"start": {}}, "compare_with": ["start"], "permuted": []}, "arms.start: this name is not free"),
        (
            {
                "hypotheses": [
                    {"says": "x", "arm": "entropy", "less": "grpo", "beyond_permuted": True, "expected": "same"}
                ]
            },
            "hypotheses: entropy has no permuted twin; expected it under permuted",
        ),
        (
            {"arms": {"grpo": {}, "clip": {"surrogate.clip": 0.3}}},
            "arms.clip: differs from grpo in surrogate.clip (0.3 against 0.2); expected no difference",
        ),
        ({"arms": {"grpo": {"method": {"name": "gpro"}}}}, "did you mean grpo?"),
        (
            {"tuning": {"seeds": [9], "grid": {"siblings.groups": [3]}}},
            "tuning.grid: with siblings.groups=3 in place of 4, steps would be 53.3333 for equally many groups",
        ),
        ({"recipe": "nowhere.yaml"}, "nowhere.yaml: expected a recipe's YAML file"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(
    capsys: Capture, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    assert line in refusal(capsys, write_study(tmp_path, **changes))
    assert not (tmp_path / "runs/seeds").exists()


def test_a_file_that_is_absent_is_called_a_study(capsys: Capture, tmp_path: Path) -> None:
    assert "none.yaml: expected a study's YAML file" in refusal(capsys, tmp_path / "none.yaml")


def test_a_study_that_changed_after_its_first_fresh_seed_is_refused(capsys: Capture, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    plan = StudyPlan(load_study(path), path, tmp_path / "runs")
    freeze(plan, {})
    frozen = (tmp_path / "runs/study.json").read_text()
    line = refusal(capsys, write_study(tmp_path, seeds=[1, 2, 3], keys={"steps": 3}))
    assert (
        "changed after its first fresh seed: seeds (was [1, 2], is [1, 2, 3]), keys.steps (was None, is 3); put" in line
    )
    assert (tmp_path / "runs/study.json").read_text() == frozen


def test_a_recipe_that_changed_after_the_first_fresh_seed_is_refused(capsys: Capture, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.read_text())
    path = write_study(tmp_path, recipe="recipe.yaml")
    freeze(StudyPlan(load_study(path), path, tmp_path / "runs"), {})
    recipe.write_text(RECIPE.read_text().replace("clip: 0.2", "clip: 0.25"))
    assert "surrogate.clip (was 0.2, is 0.25)" in refusal(capsys, path)
