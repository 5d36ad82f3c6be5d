"""The course of a run on held-out tasks: success by category, and the share of successes that called no tool."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from sgcd.measure.health import format_rate
from sgcd.measure.summary import divide_or_none, summarise_mode
from sgcd.measure.trial_rows import TrialRow, select_evaluation, unbroken
from sgcd.show.tables import build_table, format_number

MAX_COLLAPSED_ACTIONS, MIN_COLLAPSED_NO_TOOL = 0.05, 0.9
"""A run has collapsed whose success on action tasks is at most the one, and whose share of successes without a tool is
at least the other."""
CoursePoint = dict[str, Any]
"""{"step", "success", "without_tool", "categories"}: rates over sampled trials; None where nothing was won."""


def tool_course(rows: Sequence[TrialRow], split: str) -> list[CoursePoint]:
    """One point for each evaluation of a split, from its sampled trials."""
    points: list[CoursePoint] = []
    for step in sorted({row["step"] for row in rows if row["split"] == split}):
        trials = unbroken(row for row in select_evaluation(rows, split, step) if row["mode"] == "sampled")
        summary = summarise_mode(trials)
        won = [row for row in trials if row["success"]]
        points.append(
            {
                "step": step,
                "success": summary["overall"]["value"],
                "without_tool": divide_or_none(sum(row["calls"] == 0 for row in won), len(won)),
                "categories": {name: part["value"] for name, part in summary["categories"].items()},
            }
        )
    return points


def has_collapsed(point: CoursePoint) -> bool:
    """Actions are lost, and nearly all that still succeeds calls no tool."""
    share = point["without_tool"]
    return point["categories"]["action"] <= MAX_COLLAPSED_ACTIONS and (share is None or share >= MIN_COLLAPSED_NO_TOOL)


def course_table(name: str, points: Sequence[CoursePoint]) -> Table:
    """A row for each evaluation."""
    table = build_table(f"{name}: success on held-out tasks, sampled", "step", "all")
    categories = list(points[0]["categories"])
    for column in (*categories, "successes without a tool"):
        table.add_column(column, justify="right", overflow="fold")
    for point in points:
        rates = [point["success"], *(point["categories"][category] for category in categories), point["without_tool"]]
        table.add_row(str(point["step"]), *(format_number(rate) for rate in rates))
    return table


def describe_course(name: str, points: Sequence[CoursePoint]) -> str:
    """One sentence: what became of actions and tools, and what the total shows of it."""
    start, end = points[0], points[-1]

    def ends(*path: str) -> str:
        values: list[Any] = []
        for point in (start, end):
            value: Any = point
            for key in path:
                value = value[key]
            values.append("none" if value is None else format_rate(value))
        return f"from {values[0]} to {values[1]}"

    verdict = "collapsed" if has_collapsed(end) else "did not collapse"
    return (
        f"{name} {verdict}: success on action tasks went {ends('categories', 'action')} and successes without a tool "
        f"{ends('without_tool')}, while success on all tasks went {ends('success')}."
    )
