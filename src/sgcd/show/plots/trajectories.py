"""Pictures for papers: how runs use tools, how far they come, and what their credit costs, over their steps.

Tool use and progress are the paper's Figures 2 and 3 (its appendix D); costs are what its appendix B monitors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sgcd.errors import FolderError
from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import select_evaluation
from sgcd.show.escape_text import escape_text
from sgcd.show.plots.drawing import default_style, save_pictures, strip_panel, trailing_mean
from sgcd.show.run_numbers import STEP_NUMBERS, divide, learning_seconds
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, which colour blindness leaves apart."""
_MARKERS = "osD^vPX"
_LIMITS = ("token_limit", "turn_limit")
_GIB = 2**30
GetNumber = Callable[[StepMetrics], float | None]
_BY_NAME: Mapping[str, GetNumber] = {number.name: number.get for number in STEP_NUMBERS}


@dataclass(frozen=True, slots=True)
class RunCurves:
    """What is drawn of one run: its rows, and its evaluations' rates by step, all and by category."""

    label: str
    metrics: Sequence[StepMetrics]
    rates: Mapping[int, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: a number of each step, or a rate of each evaluation."""

    title: str
    get: GetNumber | None = None
    category: str = ""
    is_share: bool = False


def _calls_a_rollout(row: StepMetrics) -> float | None:
    return divide(row.calls, row.rollouts - row.broken)


def _ended_share(row: StepMetrics) -> float | None:
    cut = sum(row.endings.get(name, 0) for name in _LIMITS)
    ended = divide(cut, sum(row.endings.values()))
    return None if ended is None else 1 - ended


FIGURES: Mapping[str, tuple[Panel, ...]] = {
    "tool-use": (
        Panel("success on held-out action tasks", category="action", is_share=True),
        Panel("calls of tools in a rollout", _calls_a_rollout),
        Panel("successes without a tool", _BY_NAME["successes without a tool"], is_share=True),
        Panel("success in training", _BY_NAME["success"], is_share=True),
    ),
    "progress": (
        Panel("success on held-out tasks", category="all", is_share=True),
        Panel("rollouts that end before a limit", _ended_share, is_share=True),
        Panel("tokens of a rollout", lambda row: divide(row.tokens_sampled, row.rollouts - row.broken)),
        Panel("reward in training", _BY_NAME["reward"]),
    ),
    "costs": (
        Panel("seconds of a step, without evaluation", learning_seconds),
        Panel("seconds of the teacher's scoring", lambda row: row.seconds.get("teacher")),
        Panel("credited tokens, of those that may be", _BY_NAME["credited tokens"], is_share=True),
        Panel("peak memory, GiB", lambda row: divide(row.peak_memory, _GIB) or None),
    ),
}


def draw_trajectories(paths: Sequence[Path]) -> dict[str, bytes]:
    """Each picture by the name of its file: a line for each run."""
    runs = [read_curves(path) for path in paths]
    if not any(run.metrics for run in runs):
        raise FolderError(f"{paths[0]}: has no step yet, so there is nothing to draw; wait for its first step")
    with default_style():
        return save_pictures({name: draw_figure(panels, runs) for name, panels in FIGURES.items()})


def read_curves(path: Path) -> RunCurves:
    """The curves of a run; its label is its method and the last two names of its path."""
    folder = RunFolder.open(path)
    rows, recipe = folder.read_evaluations(), folder.read_recipe()
    label = f"{recipe.get('method', {}).get('name', folder.kind)} ({'/'.join(path.resolve().parts[-2:])})"
    split = recipe.get("evaluation", {}).get("split") or next((row["split"] for row in rows), "")
    rates: dict[int, Mapping[str, Mapping[str, Any]]] = {}
    for step in sorted({row["step"] for row in rows if row["split"] == split}):
        modes = summarise_evaluation(select_evaluation(rows, split, step))["modes"]
        part = modes["sampled" if "sampled" in modes else "greedy"]
        rates[step] = {"all": part["overall"], **part["categories"]}
    return RunCurves(escape_text(label), folder.read_metrics(), rates)


def draw_figure(panels: Sequence[Panel], runs: Sequence[RunCurves]) -> Any:
    """Four panels; the runs are named in the first that shows them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure: Any = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=True):
        for index, run in enumerate(runs):
            colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
            if panel.get:
                _draw_numbers(axis, run, panel.get, colour)
            else:
                _draw_rates(axis, run, panel.category, colour, marker=marker)
        axis.set_title(panel.title, loc="left", fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if not axis.has_data():
            axis.annotate(
                "not measured", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=9, color="#777777"
            )
        elif panel.is_share:
            axis.set_ylim(-0.02, 1.02)
        strip_panel(axis)
    legends: list[Any] = [axis.get_legend_handles_labels() for axis in axes.flat]
    if len(runs) > 1 and any(handles for handles, _ in legends):
        figure.legend(
            *max(legends, key=lambda legend: len(legend[0])),
            loc="outside upper center",
            ncols=4,
            frameon=False,
            fontsize=8.5,
        )
    figure.supxlabel("step", fontsize=9)
    return figure


def _draw_numbers(axis: Any, run: RunCurves, get: GetNumber, colour: str) -> None:
    """Each step's number, faint, below the mean of the last steps."""
    points = [(row.step, value) for row in run.metrics if (value := get(row)) is not None and isfinite(value)]
    if points:
        steps, values = [step for step, _ in points], [value for _, value in points]
        axis.plot(steps, values, color=colour, alpha=0.3, linewidth=0.9)
        axis.plot(steps, trailing_mean(values), color=colour, linewidth=1.7, label=run.label)


def _draw_rates(axis: Any, run: RunCurves, category: str, colour: str, *, marker: str) -> None:
    """Each evaluation's rate with its interval."""
    found = [(step, rates[category]) for step, rates in run.rates.items() if category in rates]
    found = [(step, rate) for step, rate in found if rate["value"] is not None]
    bounded = [(step, rate["low"], rate["high"]) for step, rate in found if rate["low"] is not None]
    if bounded:
        axis.fill_between(*zip(*bounded, strict=True), color=colour, alpha=0.13, linewidth=0)
    if found:
        steps, values = [step for step, _ in found], [rate["value"] for _, rate in found]
        axis.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=run.label)
