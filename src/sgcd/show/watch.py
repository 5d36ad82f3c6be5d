"""A run in the terminal, from its folder alone: what it does, its numbers as sparklines, and the time that is left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sgcd.measure.health import run_warnings
from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import TrialRow, select_evaluation
from sgcd.measure.validity import count_noun
from sgcd.show.escape_text import escape_text
from sgcd.show.run_numbers import STEP_NUMBERS, collect_evaluation_numbers, collect_step_numbers, learning_seconds
from sgcd.show.tables import describe_usage, format_number
from sgcd.storage.lock import LockHolder, read_lock_holder
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder
from sgcd.storage.verify import resume_command

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 32
_MAX_WARNINGS = 5
"""Warnings below the numbers; the report has all."""
_RECENT_STEPS = 10
"""The time that is left follows from so many steps."""
_USUAL = {"broken rollouts": 0.0, "credited tokens": 0.0, "mean weight": 1.0}
"""Numbers that are left out while they never differ from this."""
Series = list[tuple[int, float]]
"""(step, value), oldest first."""


@dataclass(frozen=True, slots=True)
class RunView:
    """What a run's folder holds at one moment; a folder that a command has only begun to fill holds nothing yet."""

    path: Path
    folder: RunFolder | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: Sequence[StepMetrics] = ()
    evaluations: Sequence[TrialRow] = ()
    damage: Sequence[str] = ()
    holder: LockHolder | None = None

    @classmethod
    def read(cls, path: Path) -> "RunView":
        holder = read_lock_holder(path)
        if holder and not (path / "recipe.yaml").exists():
            return cls(path, holder=holder)
        folder = RunFolder.open(path)
        metrics, damage = folder.scan_metrics()
        evaluations, evaluation_damage = folder.scan_evaluations()
        return cls(path, folder, folder.read_recipe(), metrics, evaluations, (*damage, *evaluation_damage), holder)

    @property
    def step(self) -> int:
        return self.metrics[-1].step if self.metrics else 0

    @property
    def planned(self) -> int | None:
        """Steps of a run that is trained."""
        has_steps = self.folder is not None and self.folder.kind in ("training", "supervised")
        return self.recipe.get("steps") if has_steps else None

    @property
    def is_running(self) -> bool:
        return self.holder is not None


def render_run(view: RunView) -> RenderableType:
    """The whole screen."""
    if view.folder is None:
        return Text(f"{view.path}: {describe_state(view)}")
    parts: list[RenderableType] = [Text(escape_text(f"{view.path}: {describe_subject(view)}"), style="bold")]
    if view.planned:
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=view.planned, completed=view.step, width=_SPARK_WIDTH)
        grid.add_row(f"step {view.step} of {view.planned}", bar, describe_state(view))
        parts.append(grid)
    else:
        parts.append(Text(describe_state(view)))
    if series := collect_series(view):
        parts.append(build_series_table(series))
    return Group(*parts, *(Text(escape_text(line)) for line in describe_rest(view)))


def describe_subject(view: RunView) -> str:
    """What the run is."""
    assert view.folder
    environment = view.recipe["environment"].get("name", "?")
    start = view.recipe.get("policy", {}).get("start", "?")
    match view.folder.kind:
        case "training":
            return f"{view.recipe.get('method', {}).get('name', '?')} trains {start} in {environment}"
        case "supervised":
            return f"a supervised start of {start} for {environment}"
        case "recorded":
            return "credit of recorded rollouts"
        case kind:
            return f"{kind} in {environment}"


def describe_state(view: RunView) -> str:
    """Whether somebody writes in the folder, and how long the rest takes.

    A lock without a process that holds it was left by a run that was killed.
    """
    if view.is_running and view.folder is None:
        return "starting, nothing is written yet"
    is_done = view.planned is not None and view.step >= view.planned
    if view.is_running:
        return "finishing" if is_done else f"running{describe_time_left(view)}"
    if view.planned is None:
        return "nobody writes here now"
    return "finished" if is_done else "stopped"


def describe_resume(view: RunView) -> str:
    """How to go on with a stopped run; nothing for any other. A line of its own: it may be wider than the terminal."""
    is_stopped = view.folder is not None and describe_state(view) == "stopped"
    return f"to go on: {resume_command(view.folder)}" if is_stopped and view.folder else ""


def describe_time_left(view: RunView) -> str:
    """The time of the remaining steps by the mean of the last ones, with the evaluations and saves at their mean."""
    rows = [row for row in view.metrics if row.seconds]
    if not rows or not view.planned:
        return ""
    recent = rows[-_RECENT_STEPS:]
    step_seconds = sum(map(learning_seconds, recent)) / len(recent)
    other_seconds = sum(row.seconds["total"] - learning_seconds(row) for row in rows) / len(rows)
    minutes, seconds = divmod(round((step_seconds + other_seconds) * (view.planned - view.step)), 60)
    hours, minutes = divmod(minutes, 60)
    return f", about {hours}:{minutes:02d}:{seconds:02d} left" if hours else f", about {minutes}:{seconds:02d} left"


def collect_series(view: RunView) -> dict[str, tuple[Series, bool]]:
    """The numbers over the steps, by name, each with whether it is a share: held-out success first."""
    series: dict[str, tuple[Series, bool]] = {}
    split = view.recipe.get("evaluation", {}).get("split")
    for step in sorted({row["step"] for row in view.evaluations if row["split"] == split}):
        summary = summarise_evaluation(select_evaluation(view.evaluations, split, step))
        for name, value in collect_evaluation_numbers(summary).items():
            series.setdefault(name, ([], True))[0].append((step, value))
    numbers_by_step = [(row.step, collect_step_numbers(row)) for row in view.metrics]
    for number in STEP_NUMBERS:
        points = [(step, numbers[number.name]) for step, numbers in numbers_by_step if number.name in numbers]
        if any(value != _USUAL.get(number.name) for _, value in points):
            series[number.name] = (points, number.is_share)
    if "reward" in series and series["reward"][0] == series.get("success", ([], True))[0]:
        del series["reward"]
    return series


def build_series_table(series: Mapping[str, tuple[Series, bool]]) -> Table:
    """A line for each number: its course, its value at the beginning and now."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("course", width=_SPARK_WIDTH, no_wrap=True)
    table.add_column("first", justify="right")
    table.add_column("now", justify="right")
    for name, (points, is_share) in series.items():
        values = [value for _, value in points]
        bounds = (0.0, 1.0) if is_share else (min(values), max(values))
        table.add_row(escape_text(name), draw_sparkline(values, *bounds), *map(format_number, (values[0], values[-1])))
    return table


def draw_sparkline(values: Sequence[float], low: float, high: float, width: int = _SPARK_WIDTH) -> str:
    """One block for each value, or for the mean of neighbours where there are too many.

    >>> draw_sparkline([0, 0.5, 1], 0, 1)
    '▁▅█'
    >>> draw_sparkline([7, 7], 7, 7)
    '▄▄'
    """
    count = min(len(values), width)
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    parts = [values[start:stop] for start, stop in pairwise(edges)]
    means = [sum(part) / len(part) for part in parts]
    if high <= low:
        return _BLOCKS[3] * count
    levels = [round((mean - low) / (high - low) * (len(_BLOCKS) - 1)) for mean in means]
    return "".join(_BLOCKS[min(max(level, 0), len(_BLOCKS) - 1)] for level in levels)


def describe_rest(view: RunView) -> list[str]:
    """References and calls so far, damage and warnings."""
    lines: list[str] = []
    references = [row.reference for row in view.metrics if row.reference]
    if references:
        written, groups = (sum(getattr(part, name) for part in references) for name in ("written", "groups"))
        lines.append(f"references: {written} of {count_noun(groups, 'group')}")
    lines += describe_usage(view.metrics)
    warnings = [*(f"damaged: {problem}" for problem in view.damage), *run_warnings(view.metrics)]
    lines += warnings[:_MAX_WARNINGS]
    if len(warnings) > _MAX_WARNINGS:
        lines.append(f"{len(warnings) - _MAX_WARNINGS} more warnings: sgcd report {view.path}")
    return lines
