"""Scenarios and tests passed in the summary of an evaluation."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgcd.measure.summary import summarise_scenarios
from sgcd.show.tables import evaluation_remarks


def row(scenario: int, task: int, trial: int, *, success: bool, broken: str = "") -> dict[str, Any]:
    tests = {"tests": 4, "tests_passed": 4 if success else 1}
    names = {"scenario": f"s{scenario}", "task": f"s{scenario}_{task}", "trial": trial}
    return {**names, "success": success, "broken": broken, **({} if broken else tests)}


def test_a_scenario_succeeds_where_all_its_tasks_do_in_one_trial() -> None:
    rows = [row(s, t, 0, success=(s, t) != (2, 3)) for s in (1, 2) for t in (1, 2, 3)]
    found = summarise_scenarios(rows)
    assert found["tests_passed"] == pytest.approx(5.25 / 6)
    assert {key: found["scenarios"][key] for key in ("tasks", "trials", "successes", "value")} == {
        "tasks": 2,
        "trials": 2,
        "successes": 1,
        "value": 0.5,
    }
    broken = summarise_scenarios([*rows[:5], row(2, 3, 0, success=False, broken="killed")])
    assert (broken["scenarios"]["trials"], broken["scenarios"]["broken"]) == (1, 1)
    assert summarise_scenarios([{"task": "a", "trial": 0, "success": True, "broken": ""}]) == {}


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_the_rate_of_scenarios_is_the_mean_of_products(successes: list[bool]) -> None:
    outcomes = iter(successes)
    rows = [row(s, t, trial, success=next(outcomes)) for s in (1, 2) for trial in (0, 1) for t in (1, 2, 3)]
    trials = [all(successes[start : start + 3]) for start in range(0, 12, 3)]
    assert summarise_scenarios(rows)["scenarios"]["value"] == pytest.approx(sum(trials) / 4)


def test_the_remark_has_both_rates() -> None:
    overall = {"value": 5 / 6}
    mode = {
        "overall": overall,
        "scenarios": {"value": 0.5, "successes": 1, "trials": 2},
        "tests_passed": 0.875,
        "audit": {},
        "passes": [],
        "broken": {"trials": 0},
        "calls_in_error": None,
        "malformed_turns": None,
        "looping": None,
    }
    [_, line] = evaluation_remarks({"modes": {"greedy": mode}})
    assert line == (
        "greedy: task goal completion 83.3 %, scenario goal completion 50.0 % (1 of 2), tests passed 87.5 %"
    )
