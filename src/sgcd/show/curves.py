"""What a run was from step to step, as small pictures: success, reward, loss, credit, time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

from sgcd.measure.rows import one_evaluation
from sgcd.measure.summary import summarise
from sgcd.show.svg import COLOURS, drawing, svg
from sgcd.show.tables import number

Row = Mapping[str, Any]
Points = list[tuple[int, float]]
SIZE = (3.9, 1.9)
"""Inches; the page scales it."""
TRAILING = 5
"""Steps that a trailing mean looks back on."""
SHARES = ("Mixed groups", "Where credit falls", "Scored rollouts", "Neighbour's reference")
"""Pictures that always run from zero to one."""
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


PLAIN = (
    ("loss", "Loss", "the surrogate, before each step"),
    ("grad_norm", "Gradient", "its norm before clipping"),
    ("kl", "KL", "to the initial policy, in nats a token"),
    ("clip_share", "Clip share", "tokens at the bound of the ratio"),
    ("entropy", "Entropy", "of the policy where it spoke, in nats"),
)


def curves(metrics: Sequence[Row], evaluations: Sequence[Row], split: str | None) -> tuple[list[Curve], list[str]]:
    """Whatever there is to draw, and in words what was the same in every step; what was not measured is left out."""
    with drawing():
        return _curves(metrics, evaluations, split)


def _curves(metrics: Sequence[Row], evaluations: Sequence[Row], split: str | None) -> tuple[list[Curve], list[str]]:
    drawn = [held_out(evaluations, split), training(metrics)]
    flat: list[str] = []
    groups = ("Mixed groups", "tasks whose siblings did not agree", {"": points(metrics, mixed)})
    plain = [(title, note, {"": points(metrics, lambda row, of=key: row.get(of))}) for key, title, note in PLAIN]
    for title, note, lines in (groups, *plain, *credited(metrics)):
        if constant(lines):
            flat += [f"{title.lower()} {name} {line[0][1]:.4g}".replace("  ", " ") for name, line in lines.items()]
        elif any(lines.values()):
            drawn.append(plot(title, note, lines))
    return [curve for curve in (*drawn, seconds(metrics)) if curve], flat


def constant(lines: Mapping[str, Points]) -> bool:
    return all(line and len({value for _, value in line}) == 1 for line in lines.values())


def held_out(evaluations: Sequence[Row], split: str | None) -> Curve | None:
    """Success on held-out tasks at every evaluation, by mode, with intervals."""
    rows = [dict(row) for row in evaluations if row["split"] == split]
    if not rows:
        return None
    figure, axes = _figure(share=True)
    told: list[str] = []
    lines: list[tuple[str, str]] = []
    steps = sorted({row["step"] for row in rows})
    summaries = [summarise(one_evaluation(rows, split, step))["modes"] for step in steps]
    for mode, colour in zip(("sampled", "greedy"), LINES, strict=False):
        found = [(step, modes[mode]["overall"]) for step, modes in zip(steps, summaries, strict=True) if mode in modes]
        found = [(step, rate) for step, rate in found if rate["value"] is not None]
        if found:
            sure = [(step, rate["low"], rate["high"]) for step, rate in found if rate["low"] is not None]
            if sure:
                axes.fill_between(*zip(*sure, strict=True), color=colour, alpha=0.13, linewidth=0)
                axes.vlines(*zip(*sure, strict=True), color=colour, alpha=0.5, linewidth=1)
            values = [(step, rate["value"]) for step, rate in found]
            axes.plot(*zip(*values, strict=True), color=colour, marker="o", markersize=3.5, linewidth=1.6)
            lines.append((mode, colour))
            told.append(
                f"{mode} {number(values[0][1])} at step {steps[0]}, {number(values[-1][1])} at step {steps[-1]}"
            )
    return _curve(figure, axes, "Success", f"on held-out {split} tasks, with 95 % intervals", "; ".join(told), lines)


def training(metrics: Sequence[Row]) -> Curve | None:
    """Mean reward of everything a step played; where rewards are not just success, both."""
    lines = {"reward": points(metrics, lambda row: row["reward"])}
    wins = points(metrics, lambda row: row["success"])
    if wins != lines["reward"]:
        lines["success"] = wins
    if not any(lines.values()):
        return None
    return plot("Training reward", f"of each step, and the mean of {TRAILING} steps", lines, mean=True)


def credited(metrics: Sequence[Row]) -> list[tuple[str, str, dict[str, Points]]]:
    """What steps tell of their credit; nothing for a method that needs no reference."""

    def line(*path: str) -> Points:
        return points(metrics, lambda row: at(row, "credit", *path))

    def share(part: str, whole: str) -> Points:
        return points(metrics, lambda row: ratio(at(row, "credit", part), at(row, "credit", whole)))

    kinds = dict.fromkeys(kind for row in metrics for kind in at(row, "credit", "where") or ())
    pictures: list[tuple[str, str, dict[str, Points]]] = [
        ("Credited tokens", "creditable tokens with a weight above one", {"": share("credited", "creditable")}),
        ("Mean weight", "over every token that was written", {"": line("weight", "mean")}),
        (
            "Where credit falls",
            "share of it, by kind and at turns' beginnings",
            {kind: line("where", kind, "credit") for kind in kinds},
        ),
        (
            "Divergence",
            "between student and teacher, in nats",
            {name: line("divergence", name) for name in ("mean", "p90", "p99")},
        ),
        ("Segments", "in a rollout that had a reference", {"": share("segments", "scored")}),
        ("Scored rollouts", "share of those learnt from that had a reference", {"": share("scored", "rollouts")}),
        ("Neighbour's reference", "share of credited tokens that it credits too", {"": line("shuffled", "overlap")}),
    ]
    found = [(title, note, {name: line for name, line in lines.items() if line}) for title, note, lines in pictures]
    return [each for each in found if each[2]]


def at(row: Any, *path: str) -> Any:
    """What lies at a path of keys; None where there is no such thing."""
    for key in path:
        row = cast(Row, row).get(key) if isinstance(row, dict) else None
    return row


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def seconds(metrics: Sequence[Row]) -> Curve | None:
    """Where the time of each step went, stacked; phases that took under one percent are left out."""
    rows = [row for row in metrics if row.get("seconds")]
    total = sum(row["seconds"]["total"] for row in rows)
    if not total:
        return None
    spent = {name: [row["seconds"].get(name, 0.0) for row in rows] for name in rows[0]["seconds"] if name != "total"}
    spent = {name: values for name, values in spent.items() if sum(values) >= total / 100}
    figure, axes = _figure()
    below = [0.0] * len(rows)
    lines: list[tuple[str, str]] = []
    order = sorted(spent, key=lambda name: -sum(spent[name]))
    for index, name in enumerate(order):
        colour, alpha = LINES[index % len(LINES)], 0.85 if index < len(LINES) else 0.4
        axes.bar([row["step"] for row in rows], spent[name], bottom=below, width=0.82, color=colour,
                 alpha=alpha, linewidth=0)  # fmt: skip
        lines.append((name, colour))
        below = [low + more for low, more in zip(below, spent[name], strict=True)]
    told = ", ".join(f"{name} {100 * sum(spent[name]) / total:.0f} %" for name in order)
    return _curve(figure, axes, "Time", "seconds of a step, by phase", told, lines)


def mixed(row: Row) -> float | None:
    return ratio(row["mixed"], row["tasks"])


# -- drawing ----------------------------------------------------------------------------------------------------------


def plot(title: str, note: str, lines: Mapping[str, Points], mean: bool = False) -> Curve:
    """One picture, a line for each name. `mean`: the values are faint and their trailing mean is drawn."""
    within = all(0 <= value <= 1 for line in lines.values() for _, value in line)
    figure, axes = _figure(share=within and (mean or title in SHARES))
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


def trailing(values: Sequence[float]) -> list[float]:
    """The mean of each value and those just before it."""
    parts = [values[max(0, end - TRAILING) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def points(metrics: Sequence[Row], read: Callable[[Row], Any]) -> Points:
    return numbers([(row["step"], read(row)) for row in metrics])


def numbers(found: Sequence[tuple[int, Any]]) -> Points:
    """Those that are numbers, and finite."""
    return [(step, float(value)) for step, value in found if isinstance(value, int | float) and isfinite(value)]


def _figure(share: bool = False) -> tuple[Any, Any]:
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
