"""The course of tools and actions over a run, and the demonstration of a collapse."""

import json
from pathlib import Path
from typing import Any

import pytest

from sgcd.cli import main
from sgcd.cli.commands.lab import demo
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import recipe_differences
from sgcd.show.tool_course import describe_course, has_collapsed, tool_course
from sgcd.storage.run_folder import RunFolder

LAB = Path(__file__).resolve().parents[2] / "recipes/lab"


def trial(step: int, category: str, trial: int, success: bool, calls: int, **more: Any) -> dict[str, Any]:
    counts = {"failed_calls": 0, "malformed": 0, "looping": False, "turns": 2, "tokens": 9, "inexact": 0}
    return {
        "schema": 1, "seed": 0, "step": step, "split": "dev", "mode": "sampled", "task": category, "trial": trial,
        "category": category, "needs_tool": None, "success": success, "reward": float(success), "broken": "",
        "calls": calls, "ending": "answered", **counts, **more,
    }  # fmt: skip


ROWS = [
    *(trial(0, "action", number, number < 2, 3) for number in range(4)),
    *(trial(0, "information", number, number < 1, 0) for number in range(4)),
    trial(0, "action", 9, True, 0, mode="greedy"),
    trial(0, "action", 9, True, 0, split="test"),
    trial(0, "action", 8, False, 0, broken="the machine"),
    *(trial(5, "action", number, False, 0) for number in range(4)),
    *(trial(5, "information", number, number < 3, 0) for number in range(4)),
]
COURSE = [
    {"step": 0, "success": 0.375, "without_tool": 1 / 3, "categories": {"action": 0.5, "information": 0.25}},
    {"step": 5, "success": 0.375, "without_tool": 1.0, "categories": {"action": 0.0, "information": 0.75}},
]


def test_a_course_has_a_point_for_each_evaluation() -> None:
    course = tool_course(ROWS, "dev")
    for point in course:
        point["categories"] = {name: rate for name, rate in point["categories"].items() if rate is not None}
    assert course == COURSE
    assert [has_collapsed(point) for point in course] == [False, True]
    assert describe_course("sdpo", course) == (
        "sdpo collapsed: success on action tasks went from .50 to .00 and successes without a tool from .33 to 1.00, "
        "while success on all tasks went from .38 to .38."
    )
    assert describe_course("sgcd", course[:1]).startswith("sgcd did not collapse: ")


def test_a_run_that_wins_nothing_has_collapsed() -> None:
    point = {"step": 3, "success": 0.0, "without_tool": None, "categories": {"action": 0.0}}
    assert has_collapsed(point)
    assert "successes without a tool from none to none" in describe_course("a", [point])


def test_the_collapse_is_shown_for_both_arms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def play(runs: Any) -> dict[str, Any]:
        for recipe, path in runs.values():
            assert recipe.is_file()
            RunFolder.create(path, "version: 1\n", {}).append_evaluation(ROWS)
        return {name: {} for name in runs}

    monkeypatch.setattr(demo, "train_side_by_side", play)
    assert main(["lab", "--collapse"]) == 0
    said = capsys.readouterr().out
    assert "collapse-sdpo collapsed: success on action tasks went from .50 to .00" in said
    assert "collapse-sgcd: success on held-out tasks, sampled" in said
    assert main(["lab", "--collapse", "--json"]) == 0
    assert [point["step"] for point in json.loads(capsys.readouterr().out)["courses"]["collapse-sgcd"]] == [0, 5]
    assert (tmp_path / "runs/lab-collapse-sdpo-2").is_dir()


def test_the_arms_of_the_collapse_differ_in_the_method_alone() -> None:
    sdpo, sgcd = (load_recipe(LAB / f"{name}.yaml") for name in demo.COLLAPSE_RECIPES)
    assert {change.key.partition(".")[0] for change in recipe_differences(sdpo, sgcd)} == {"method"}
    assert sdpo.policy.start == "lab:plain-leaky"
    assert getattr(sdpo.method, "context", "") == getattr(sgcd.method, "context", "") == "answer"
