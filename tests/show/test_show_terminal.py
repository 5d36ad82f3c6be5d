"""Progress: one line for each step where nobody can see it move, one display where somebody can."""

import io
from typing import Any

import pytest
from rich.console import Console

from sgcd.show.tables import format_interval, format_number
from sgcd.show.terminal import Terminal
from sgcd.storage.metrics import StepMetrics

AUDIT = {"successes": 0, "without_tool": 0, "without_tool_share": None, "tools_per_success": None}
ROW: dict[str, Any] = {
    "step": 3,
    "success": 0.43,
    "mixed": 1,
    "tasks": 32,
    "uniform_success": 0,
    "uniform_failure": 31,
    "skipped": "",
    "loss": -0.0001,
    "grad_norm": 0.31,
    "seconds": {"total": 2.06},
    "rollouts": 256,
    "broken": 0,
    "causes": {},
    "endings": {"answered": 256},
    "cuts": {},
    "calls": 10,
    "calls_in_error": 0.0,
    "malformed_turns": 0,
    "audit": {"information": AUDIT, "action": AUDIT},
}
RATE = {"tasks": 20, "value": 0.5, "low": 0.299, "high": 0.701}
SUMMARY = {"step": 0, "split": "dev", "modes": {"greedy": {"overall": RATE}}}


def watch(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    with Terminal(console, steps=40) as shown:
        shown.on_evaluation(SUMMARY)
        shown.on_phase("sampling")
        shown.on_step(StepMetrics.from_json(ROW))
        shown.on_phase("scoring")
        if terminal:
            shown.live.refresh()
    return out.getvalue()


def test_without_a_terminal_a_step_is_a_plain_line_and_its_health_stands_below():
    assert watch(terminal=False).splitlines() == [
        "after step 0: 20 dev tasks, greedy: .500 [.299, .701]",
        "step  3/40  success .430  1 of 32 tasks mixed  loss .000  gradient .310  2.1 s",
        "  31 of 32 tasks: the siblings' rewards hardly differ, nothing to learn (all fail)",
    ]


def test_in_a_terminal_one_display_moves():
    said = watch(terminal=True)
    assert "after step 0: 20 dev tasks, greedy: .500 [.299, .701]" in said
    assert "step 3 of 40" in said
    assert "scoring" in said
    assert "about 1:16 left" in said
    assert "31 of 32 tasks: the siblings' rewards hardly differ, nothing to learn" in said


def test_a_step_that_moved_nothing_says_why():
    out = io.StringIO()
    shown = Terminal(Console(file=out, width=100), steps=40)
    row = ROW | {"mixed": 0, "skipped": "no mixed group", "loss": None, "grad_norm": None}
    shown.on_step(StepMetrics.from_json(row))
    first, second, *_ = out.getvalue().splitlines()
    assert "0 of 32 tasks mixed  no update" in first
    assert second == "  step skipped: no mixed group"


@pytest.mark.parametrize(
    ("estimate", "sign", "shown"),
    [
        ({"value": 0.5, "low": 0.25, "high": 0.75}, "", ".500 [.250, .750]"),
        ({"value": 0.1, "low": -0.2, "high": 0.4}, "+", "+.100 [-.200, +.400]"),
        ({"value": -0.0001, "low": None, "high": None}, "+", "+.000 [no interval]"),
        ({"value": None, "low": None, "high": None}, "", "-"),
    ],
)
def test_an_interval_is_always_shown_with_its_value(estimate: dict[str, Any], sign: str, shown: str):
    assert format_interval(estimate, sign) == shown
    assert format_number(None) == "-"
    assert [format_number(value) for value in (0.5, -0.25, 50.04, 10.0)] == [".500", "-.250", "50.040", "10.000"]
