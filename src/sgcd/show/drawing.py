"""How a picture is drawn: small, plain, lines or bars over the steps of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgcd.show.svg import COLOURS, svg
from sgcd.show.tables import number

Points = list[tuple[int, float]]
Rate = Mapping[str, Any]
SIZE = (3.9, 1.9)
"""Inches; the page scales it."""
TRAILING = 5
"""Steps that a trailing mean looks back on."""
FAINT, RULE = COLOURS["faint"], COLOURS["rule"]
NAMES = {colour: name for name, colour in COLOURS.items()}
LINES = [colour for name, colour in COLOURS.items() if name.startswith("line-")]


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture with its title, a word of explanation, and what each colour stands for."""

    title: str
    note: str
    picture: str
    lines: tuple[tuple[str, str], ...] = ()


def plot(title: str, note: str, lines: Mapping[str, Points], share: bool = False, mean: bool = False) -> Curve:
    """One picture, a line for each name.

    `share`: from zero to one, if the values are. `mean`: they are faint, and their trailing mean is drawn.
    """
    within = all(0 <= value <= 1 for line in lines.values() for _, value in line)
    figure, axes = _empty(share and within)
    told: list[str] = []
    named: list[tuple[str, str]] = []
    for (name, line), colour in zip(lines.items(), LINES, strict=False):
        steps, values = [step for step, _ in line], [value for _, value in line]
        marker = "o" if len(steps) <= 16 else None
        faint = {"alpha": 0.45, "linewidth": 1} if mean else {"linewidth": 1.7}
        axes.plot(steps, values, color=colour, marker=marker, markersize=3, **faint)
        if mean:
            axes.plot(steps, trailing(values), color=colour, linewidth=2)
        if len(lines) > 1:
            named.append((name, colour))
        told.append(f"{name} {values[0]:.3g} at step {steps[0]}, {values[-1]:.3g} at step {steps[-1]}".strip())
    return _curve(figure, axes, title, note, "; ".join(told), named)


def bands(title: str, note: str, rates: Mapping[str, Sequence[tuple[int, Rate]]]) -> Curve:
    """Rates with their intervals, a line for each name."""
    figure, axes = _empty(share=True)
    told: list[str] = []
    named: list[tuple[str, str]] = []
    for (name, found), colour in zip(rates.items(), LINES, strict=False):
        sure = [(step, rate["low"], rate["high"]) for step, rate in found if rate["low"] is not None]
        if sure:
            axes.fill_between(*zip(*sure, strict=True), color=colour, alpha=0.13, linewidth=0)
            axes.vlines(*zip(*sure, strict=True), color=colour, alpha=0.5, linewidth=1)
        values = [(step, rate["value"]) for step, rate in found]
        axes.plot(*zip(*values, strict=True), color=colour, marker="o", markersize=3.5, linewidth=1.6)
        named.append((name, colour))
        (first, start), (last, end) = values[0], values[-1]
        told.append(f"{name} {number(start)} at step {first}, {number(end)} at step {last}")
    return _curve(figure, axes, title, note, "; ".join(told), named)


def stack(title: str, note: str, steps: Sequence[int], parts: Mapping[str, Sequence[float]], told: str) -> Curve:
    """Bars of parts, one on top of the other; the last part of many is grey."""
    figure, axes = _empty()
    below = [0.0] * len(steps)
    named: list[tuple[str, str]] = []
    for (name, values), colour in zip(parts.items(), LINES, strict=False):
        axes.bar(steps, values, bottom=below, width=0.82, color=colour, alpha=0.85, linewidth=0)
        named.append((name, colour))
        below = [low + more for low, more in zip(below, values, strict=True)]
    return _curve(figure, axes, title, note, told, named)


def trailing(values: Sequence[float]) -> list[float]:
    """The mean of each value and those just before it."""
    parts = [values[max(0, end - TRAILING) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def _empty(share: bool = False) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure: Any = Figure(figsize=SIZE)
    axes = figure.add_axes((0.12, 0.13, 0.86, 0.83))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=FAINT, labelsize=9, length=0, pad=4)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    if share:
        axes.set_ylim(0, 1.02)
        axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure, axes


def _curve(figure: Any, axes: Any, title: str, note: str, told: str, lines: Sequence[tuple[str, str]]) -> Curve:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.margins(x=0.03)
    named = tuple((name, NAMES[colour]) for name, colour in lines)
    return Curve(title, note, svg(figure, f"{title}, {note}: {told}"), named)
