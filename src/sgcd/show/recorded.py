"""Shows the credit of recorded rollouts: a table of the mixed tasks, a sentence for the page, and what is wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from sgcd.measure import health
from sgcd.measure.credit_warnings import credit_warnings
from sgcd.measure.reading import reading_warnings
from sgcd.measure.validity import count_noun
from sgcd.show.escape_text import escape_text
from sgcd.show.steps import pick_evenly
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

_MAX_ROWS = 40
"""Tasks of the table; the page and credit.jsonl have all."""
_MAX_BATCHES = 16
"""Batches of recorded rollouts on a page."""
_MAX_TURNS = 3
"""Deciding turns that are named for each task, those with most of their rollout's credit first."""


def build_task_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each task, in the order of the files."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("task")
    table.add_column("success", justify="right")
    table.add_column("what successes do and failures do not", ratio=3)
    table.add_column("turns that decide", ratio=2)
    for task in tasks[:_MAX_ROWS]:
        table.add_row(
            escape_text(task["task"]),
            f"{task['num_successes']} of {task['num_rollouts']}",
            describe_contrast(task),
            "\n".join(describe_turn(turn) for turn in task["deciding"][:_MAX_TURNS]),
        )
    if len(tasks) > _MAX_ROWS:
        table.caption = f"{len(tasks) - _MAX_ROWS} more are on the page and in credit.jsonl"
    return table


def describe_contrast(task: Mapping[str, Any]) -> str:
    """The reference without its first line, which only lists calls."""
    if not task["reference"]:
        return escape_text(f"no reference: {task['cause']}")
    lines = str(task["reference"]).splitlines()
    return escape_text("\n".join(lines[1:] or lines))


def describe_turn(turn: Mapping[str, Any]) -> str:
    """A turn with its part of the weight above one.

    >>> describe_turn({"sibling": 0, "success": True, "turn": 3, "share": 0.5, "act": "calls book"})
    'turn 3 of sibling 0 (success), .50 of its credit: calls book'
    """
    outcome = "success" if turn["success"] else "failure"
    share = f"{turn['share']:.2f}".removeprefix("0")
    return escape_text(
        f"turn {turn['turn']} of sibling {turn['sibling']} ({outcome}), {share} of its credit: {turn['act']}"
    )


def choose_batches(folder: RunFolder) -> Sequence[int]:
    """The batches of recorded rollouts that a page shows; none of a run, whose steps are chosen by default."""
    return pick_evenly(folder.steps_with_rollouts(), _MAX_BATCHES) if folder.kind == "recorded" else ()


def describe_recorded(facts: Mapping[str, Any]) -> str:
    """One sentence on what was read, and who gave the weights."""
    counts = facts["recorded"]
    weights = (
        f"Weights are those of {facts['policy']['start']}, which read each rollout with and without the reference."
        if "policy" in facts
        else "No model has read them: turns in which siblings part weigh 2, all else 1."
    )
    shown = "" if counts["max_tasks"] is None else f" Of these, the first {counts['max_tasks']} are looked at."
    return (
        f"Of {count_noun(counts['all_tasks'], 'task')} with {count_noun(counts['usable'], 'recorded rollout')}, "
        f"{counts['mixed_tasks']} have siblings that differ in their rewards.{shown} {weights}"
    )


def recorded_warnings(rows: Sequence[StepMetrics]) -> list[str]:
    """The problems of the credit of recorded rollouts, which nothing was learned from."""
    return [
        *health.missing_reference_warnings(rows),
        *health.endpoint_warnings(rows),
        *credit_warnings(rows),
        *reading_warnings(rows),
    ]
