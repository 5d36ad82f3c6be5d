"""A summary counts the right things, leaves broken trials out of every share, and shows what is empty as empty."""

from typing import Any

import pytest

from sgcd.measure.statistics import clustered_interval, wilson_interval
from sgcd.measure.summary import audit_tool_use, list_categories, summarise_evaluation, summarise_passes
from sgcd.show.tables import evaluation_table


def row(task: str = "t1", success: bool = True, **changes: Any) -> dict[str, Any]:
    told = {
        "schema": 1,
        "seed": 0,
        "step": 5,
        "split": "dev",
        "mode": "sampled",
        "temperature": 1.0,
        "task": task,
        "category": "action",
        "trial": 0,
        "success": success,
        "reward": float(success),
        "broken": "",
        "calls": 2,
        "failed_calls": 1,
        "malformed": 0,
        "looping": False,
        "turns": 3,
        "tokens": 20,
        "ending": "answered",
    }
    return {**told, **changes}


BROKEN = {
    "success": False,
    "reward": 0.0,
    "broken": "reply: timed out after 60 s",
    "ending": "broken",
    "calls": 9,
    "tokens": 999,
}


def test_several_trials_of_a_task_are_clustered_and_single_passes_are_wilson() -> None:
    sampled = [row(task, success, trial=i) for task in "abcd" for i, success in enumerate((task < "c", task < "d"))]
    greedy = [row(task, task < "c", mode="greedy") for task in "abcd"]
    modes = summarise_evaluation(sampled + greedy)["modes"]
    told, expected = modes["sampled"]["overall"], clustered_interval([2, 2, 1, 0], [2] * 4)
    assert (told["tasks"], told["trials"], told["successes"], told["value"]) == (4, 8, 5, 0.625)
    assert (told["low"], told["high"], told["kind"]) == (expected.low, expected.high, expected.kind)
    told, expected = modes["greedy"]["overall"], wilson_interval(2, 4)
    assert (told["low"], told["high"], told["kind"]) == (expected.low, expected.high, "wilson")


def test_broken_trials_are_counted_and_in_no_share() -> None:
    rows = [row("a", trial=0), row("a", False, trial=1), row("b", trial=0, **BROKEN), row("b", trial=1, **BROKEN)]
    told, clean = summarise_evaluation(rows)["modes"]["sampled"], summarise_evaluation(rows[:2])["modes"]["sampled"]
    causes = {"reply: timed out after 60 s": 2}
    assert told["broken"] == {"trials": 2, "sources": {"environment": 2}, "causes": causes}
    assert (told["overall"]["value"], told["overall"]["broken"], told["overall"]["tasks"]) == (0.5, 2, 2)
    for key in ("calls_in_error", "mean_tokens", "mean_turns", "mean_reward", "endings", "passes", "audit"):
        assert told[key] == clean[key]


def test_who_broke_trials_is_counted_apart() -> None:
    causes = (
        "user: timeout: no whole answer in time",
        "model: server: status 500",
        "reply: KeyError",
        "user: empty",
        "",
    )
    rows = [row(f"t{number}", not cause, broken=cause) for number, cause in enumerate(causes)]
    broken = summarise_evaluation(rows)["modes"]["sampled"]["broken"]
    assert broken["sources"] == {"model": 1, "user": 2, "environment": 1}
    assert broken["trials"] == 4


def test_everything_broken_gives_no_rate_and_no_crash() -> None:
    told = summarise_evaluation([row("a", **BROKEN)])["modes"]["sampled"]
    assert (told["overall"]["value"], told["overall"]["reason"]) == (None, "nothing was played")
    assert told["calls_in_error"] is None
    assert told["passes"] == []


def test_categories_stand_there_empty() -> None:
    told = summarise_evaluation([row()])["modes"]["sampled"]["categories"]
    assert list(told) == ["action", "information", "transfer", "no_action"]
    assert (told["transfer"]["tasks"], told["transfer"]["value"], told["transfer"]["floor"]) == (0, None, None)


def test_what_doing_nothing_gets_is_a_mean_over_tasks_where_every_task_knows_it() -> None:
    known = [row("a", floor=1.0), row("a", floor=1.0, trial=1), row("b", floor=0.0), row("c", **BROKEN, floor=0.0)]
    told = summarise_evaluation(known)
    assert told["modes"]["sampled"]["overall"]["floor"] == pytest.approx(1 / 3)
    shown = [*evaluation_table(told).columns][-1]
    assert (shown.header, [*shown.cells]) == ("doing nothing", [".333", ".333"])
    unknown = summarise_evaluation([*known, row("d")])
    assert unknown["modes"]["sampled"]["overall"]["floor"] is None
    assert "doing nothing" not in [column.header for column in evaluation_table(unknown).columns]


def test_the_audit_holds_the_categories_in_which_a_success_was_declared_to_need_a_tool() -> None:
    """Rows of earlier versions have no such column: there information and action tasks need one."""
    declared = {"order": True, "chat": False, "action": False}
    rows = [row(category=name, calls=0, needs_tool=needs_tool) for name, needs_tool in declared.items()]
    assert {name: audit["without_tool"] for name, audit in audit_tool_use(rows).items()} == {"order": 1}
    assert list_categories(declared) == ["action", "information", "transfer", "no_action", "chat", "order"]


def test_zero_tool_audit_of_the_paper() -> None:
    rows = [
        row(category="information", calls=0),
        row(category="information", calls=0),
        row(category="information", calls=4),
        row(category="information", success=False, calls=7),
        row(category="action", calls=3),
        row(category="transfer", calls=0),
        row(category="information", calls=0, **{k: v for k, v in BROKEN.items() if k != "calls"}),
    ]
    assert audit_tool_use(rows) == {
        "information": {
            "successes": 3,
            "without_tool": 2,
            "without_tool_share": pytest.approx(2 / 3),
            "tools_per_success": pytest.approx(4 / 3),
        },
        "action": {"successes": 1, "without_tool": 0, "without_tool_share": 0.0, "tools_per_success": 3.0},
    }
    assert audit_tool_use([]) == {}
    assert audit_tool_use([row(category="action", success=False, calls=1)])["action"] == {
        "successes": 0,
        "without_tool": 0,
        "without_tool_share": None,
        "tools_per_success": None,
    }


def test_shares_of_calls_turns_and_trials() -> None:
    rows = [
        row(calls=3, failed_calls=1, malformed=1, turns=4, looping=True, ending="turn_limit", tokens=10),
        row(calls=1, failed_calls=0, malformed=0, turns=1, tokens=30),
    ]
    told = summarise_evaluation(rows)["modes"]["sampled"]
    assert told["calls_in_error"] == 0.25
    assert told["malformed_turns"] == 0.2
    assert told["looping"] == 0.5
    assert told["mean_tokens"] == 20
    assert told["mean_turns"] == 2.5
    assert told["endings"] == {"answered": 1, "turn_limit": 1}


def test_passes_are_taken_over_the_tasks_that_have_k_trials() -> None:
    rows = [row("a", True, trial=0), row("a", False, trial=1), row("b", False, trial=0), row("b", trial=1, **BROKEN)]
    assert summarise_passes(rows) == [
        {"k": 1, "tasks": 2, "pass_at": 0.25, "pass_hat": 0.25},
        {"k": 2, "tasks": 1, "pass_at": 1.0, "pass_hat": 0.0},
    ]


def test_two_evaluations_are_not_poured_together() -> None:
    with pytest.raises(ValueError, match="one evaluation"):
        summarise_evaluation([row(step=0), row(step=10)])
    assert summarise_evaluation([])["modes"] == {}
