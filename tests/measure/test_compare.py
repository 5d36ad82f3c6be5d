"""Runs are compared task by task, and only where they were measured on the same tasks in the same way."""

from pathlib import Path
from typing import Any

import pytest

from sgcd.errors import FolderError
from sgcd.measure.compare import RunEvaluation, compare_evaluations, load_evaluation
from sgcd.measure.trial_rows import select_evaluation
from sgcd.storage.run_folder import RunFolder

LAB = {"name": "lab", "chatty": "no"}


def rows(
    better: int, seed: int = 0, step: int = 10, trials: int = 2, tasks: int = 12, **changes: Any
) -> list[dict[str, Any]]:
    """Each of the first `better` tasks succeeds in its every trial, of the others only the odd trials do."""
    return [
        {
            "schema": 1,
            "seed": seed,
            "step": step,
            "split": "dev",
            "mode": "sampled",
            "temperature": 1.0,
            "task": f"t{task:02}",
            "category": "action" if task % 2 else "information",
            "trial": trial,
            "success": task < better or trial % 2 == 1,
            "broken": "",
        }
        | changes
        for task in range(tasks)
        for trial in range(trials)
    ]


def run(name: str, *args: Any, **changes: Any) -> RunEvaluation:
    return RunEvaluation(name, rows(*args, **changes), LAB)


def test_one_run_a_side_is_compared_over_tasks() -> None:
    told = compare_evaluations([run("a", 8)], [run("b", 2)])
    mode = told["modes"]["sampled"]
    assert mode["overall"]["difference"]["value"] == pytest.approx(3 / 12)
    assert mode["overall"]["difference"]["kind"] == "paired by task, t"
    assert 0 < mode["overall"]["difference"]["low"] < 0.25 < mode["overall"]["difference"]["high"]
    assert (mode["overall"]["a"], mode["overall"]["b"]) == (pytest.approx(10 / 12), pytest.approx(7 / 12))
    assert mode["overall"]["test"] == "permutation over tasks"
    assert mode["overall"]["p"] == pytest.approx(2 / 64, abs=0.01)
    assert mode["categories"]["action"]["tasks"] == 6
    assert mode["categories"]["transfer"]["difference"]["reason"] == "no task was played on both sides"
    assert list(told["modes"]) == ["sampled"]
    assert compare_evaluations([run("a", 8)], [run("b", 2)]) == told


def test_single_passes_get_mcnemar() -> None:
    told = compare_evaluations([run("a", 8, trials=1, mode="greedy")], [run("b", 2, trials=1, mode="greedy")])
    overall = told["modes"]["greedy"]["overall"]
    assert (overall["test"], overall["p"]) == ("McNemar, exact", pytest.approx(2 / 64))


def test_the_same_seeds_on_both_sides_are_matched_whatever_their_order() -> None:
    a = [run(f"a{seed}", 6 + seed, seed=seed) for seed in (2, 0, 1)]
    b = [run(f"b{seed}", 1 + seed, seed=seed) for seed in (0, 2, 1)]
    told = compare_evaluations(a, b)
    assert told["matched_by_seed"]
    assert [e["run"] for e in told["a"]] == ["a0", "a1", "a2"]
    overall = told["modes"]["sampled"]["overall"]
    assert overall["difference"]["kind"] == "t over matched seeds and tasks"
    assert [e["value"] for e in overall["runs"]] == [pytest.approx(2.5 / 12)] * 3
    loose = compare_evaluations(a, [run("b", 1, seed=7), run("c", 2, seed=8)])
    assert not loose["matched_by_seed"]
    assert loose["modes"]["sampled"]["overall"]["difference"]["kind"].startswith("t over seeds")
    assert "runs" not in loose["modes"]["sampled"]["overall"]


def test_a_task_that_only_broke_in_one_run_is_left_out_for_all() -> None:
    torn = run("a", 8)
    for row in torn.rows:
        if row["task"] == "t00" or (row["task"] == "t01" and row["trial"] == 0):
            row["broken"], row["success"] = "open: boom", False
    told = compare_evaluations([torn], [run("b", 2)])["modes"]["sampled"]
    assert (told["left_out"], told["overall"]["tasks"]) == (1, 11)
    assert told["overall"]["a"] == pytest.approx((7 + 4 * 0.5) / 11)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (run("b", 2, tasks=11), "sampled tasks: 12 against 11, 11 in common"),
        (run("b", 2, split="test"), "split is dev against test"),
        (run("b", 2, temperature=0.5), "sampled temperature is 1.0 against 0.5"),
        (run("b", 2, category="transfer"), "sampled tasks: 12 against 12, 0 in common"),
        (run("b", 2, mode="greedy"), "no mode in common"),
        (RunEvaluation("b", rows(2), {"name": "lab", "chatty": "own"}), "environment.chatty is no against own"),
        (RunEvaluation("b", rows(2), LAB | {"user": {"model": "m"}}), "environment.user.model is None against m"),
        (RunEvaluation("b", rows(2), LAB, top_p=0.9), "sampler.top_p is 1.0 against 0.9"),
    ],
)
def test_what_was_measured_otherwise_is_refused_by_name(other: RunEvaluation, named: str) -> None:
    with pytest.raises(FolderError, match=f"^a and b: .*{named}.*; evaluate both"):
        compare_evaluations([run("a", 8)], [other])


def test_evaluations_are_read_from_a_run_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a", "environment: {name: lab}\n", {})
    with pytest.raises(FolderError, match="no evaluation in this run; `sgcd evaluate` makes one"):
        load_evaluation(tmp_path / "a")
    folder.append_evaluation([*rows(2, step=0), *rows(8, step=10)])
    assert (load_evaluation(tmp_path / "a").step, load_evaluation(tmp_path / "a", step=0).step) == (10, 0)
    assert compare_evaluations([load_evaluation(tmp_path / "a")], [load_evaluation(tmp_path / "a", step=0)])[
        "matched_by_seed"
    ]
    with pytest.raises(FolderError, match="no evaluation in this run, split test, step 3"):
        load_evaluation(tmp_path / "a", "test", 3)


def test_other_limits_and_templates_are_named(tmp_path: Path) -> None:
    recipe = (
        "environment: {{name: lab, user: {{model: m, base_url: 'http://{0}'}}}}\nsiblings: {{limits: {{turns: {1}}}}}\n"
    )
    for name, turns, template in (("a", 8, "ab12"), ("b", 4, "cd34"), ("c", 8, "ab12")):
        folder = RunFolder.create(tmp_path / name, recipe.format(name, turns), {"policy": {"template": template}})
        folder.append_evaluation(rows(2))
    a, b, c = (load_evaluation(tmp_path / name) for name in "abc")
    assert compare_evaluations([a], [c])["differing_conditions"] == []
    assert compare_evaluations([a, c], [b, b])["differing_conditions"] == [
        f"siblings.limits.turns is 8 in {a.run} against 4 in {b.run}",
        f"chat template is ab12 in {a.run} against cd34 in {b.run}",
    ]


def test_of_a_trial_that_was_played_twice_the_later_counts() -> None:
    twice = [*rows(0, step=5), *rows(12, step=5), *rows(0, step=4)]
    assert select_evaluation(twice) == rows(12, step=5)
    assert select_evaluation([*rows(0, split="test", step=9), *rows(0, step=5)], split="test")[0]["step"] == 9
