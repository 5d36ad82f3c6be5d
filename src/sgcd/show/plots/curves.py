"""Small pictures of a run over its steps: success, reward, loss, credit, time."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import MODES, select_evaluation
from sgcd.show.plots.drawing import (
    LINE_COLOURS,
    TRAILING_STEPS,
    Curve,
    CurvePoints,
    default_style,
    plot_intervals,
    plot_lines,
    plot_stack,
)
from sgcd.storage.atomic import Row
from sgcd.storage.credit_metrics import CreditMetrics
from sgcd.storage.metrics import StepMetrics

_UNIT_RANGE_TITLES = (
    "Mixed groups",
    "Where credit falls",
    "Credit at the start of turns",
    "Scored rollouts",
    "Other references",
)
"""Pictures whose axis runs from zero to one."""
_METRIC_CURVES: tuple[tuple[str, str, Callable[[StepMetrics], float | None]], ...] = (
    ("Mixed groups", "tasks whose siblings differ in reward", lambda row: ratio_or_none(row.mixed, row.tasks)),
    ("Loss", "the surrogate, before each step", lambda row: row.loss),
    ("Gradient", "its norm before clipping", lambda row: row.grad_norm),
    ("KL", "to the initial policy, in nats a token", lambda row: row.kl),
    ("Clip share", "tokens at the bound of the ratio", lambda row: row.clip_share),
    ("Entropy", "of the policy where it spoke, in nats", lambda row: row.entropy),
)


def build_curves(
    metrics: Sequence[StepMetrics], evaluations: Sequence[Row], split: str | None
) -> tuple[list[Curve], list[str]]:
    """Pictures of what changed during a run, and lines for what stayed the same; unmeasured values are omitted.

    A run of one step has no pictures.
    """
    if len(metrics) < 2:
        return [], []
    lines_by_title = [
        *((title, note, {"": collect_points(metrics, get_value)}) for title, note, get_value in _METRIC_CURVES),
        *credit_curves(metrics),
    ]
    curves: list[Curve | None] = []
    unchanged: list[str] = []
    with default_style():
        reward_lines = collect_reward_lines(metrics)
        curves.append(success_curve(evaluations, split))
        if is_constant(reward_lines):
            unchanged += [f"training {name} {line[0][1]:.4g}" for name, line in reward_lines.items()]
        elif any(reward_lines.values()):
            curves.append(plot_reward(reward_lines))
        for title, note, lines in lines_by_title:
            if is_constant(lines):
                unchanged += [
                    f"{title.lower()} {name} {line[0][1]:.4g}".replace("  ", " ") for name, line in lines.items()
                ]
            elif any(lines.values()):
                curves.append(plot_lines(title, note, lines, unit_range=title in _UNIT_RANGE_TITLES))
        curves.append(time_curve(metrics))
    return [curve for curve in curves if curve], unchanged


def is_constant(lines: Mapping[str, CurvePoints]) -> bool:
    return all(line and len({value for _, value in line}) == 1 for line in lines.values())


def success_curve(evaluations: Sequence[Row], split: str | None) -> Curve | None:
    """Success on held-out tasks at every evaluation, by mode, with intervals."""
    rows = [row for row in evaluations if row["split"] == split]
    steps = sorted({row["step"] for row in rows})
    if len(steps) < 2:
        return None
    modes_by_step = {step: summarise_evaluation(select_evaluation(rows, split, step))["modes"] for step in steps}
    rates = {
        mode: [(step, by_mode[mode]["overall"]) for step, by_mode in modes_by_step.items() if mode in by_mode]
        for mode in MODES
    }
    rates = {
        mode: [(step, rate) for step, rate in series if rate["value"] is not None] for mode, series in rates.items()
    }
    rates = {mode: series for mode, series in rates.items() if series}
    return plot_intervals("Success", f"on held-out {split} tasks, with 95 % intervals", rates) if rates else None


def collect_reward_lines(metrics: Sequence[StepMetrics]) -> dict[str, CurvePoints]:
    """Mean reward of everything a step played; also success, where it differs from the reward."""
    lines = {"reward": collect_points(metrics, lambda row: row.reward)}
    success_points = collect_points(metrics, lambda row: row.success)
    if success_points != lines["reward"]:
        lines["success"] = success_points
    return lines


def plot_reward(lines: Mapping[str, CurvePoints]) -> Curve:
    return plot_lines(
        "Training reward",
        f"of each step, and the mean of {TRAILING_STEPS} steps",
        lines,
        unit_range=True,
        with_mean=True,
    )


def credit_curves(metrics: Sequence[StepMetrics]) -> list[tuple[str, str, dict[str, CurvePoints]]]:
    """The curves of a run's credit: title, note, lines. Empty where every weight is one."""
    steps = [(row.step, row.credit) for row in metrics if row.credit]

    def line(get_value: Callable[[CreditMetrics], float | None]) -> CurvePoints:
        return finite_points([(step, get_value(credit)) for step, credit in steps])

    def place_line(place: str) -> CurvePoints:
        points = finite_points([(step, credit.where[place].credit) for step, credit in steps if place in credit.where])
        return points if any(share for _, share in points) else []

    kinds = dict.fromkeys(place for _, credit in steps for place in credit.where if place != "first")
    pictures: list[tuple[str, str, dict[str, CurvePoints]]] = [
        (
            "Credited tokens",
            "creditable tokens with a weight above one",
            {"": line(lambda credit: ratio_or_none(credit.credited, credit.creditable))},
        ),
        ("Mean weight", "over every token that was written", {"": line(lambda credit: credit.weight.mean)}),
        (
            "Where credit falls",
            "share of it by kind of token",
            {kind: place_line(kind) for kind in kinds},
        ),
        ("Credit at the start of turns", "share of it on the first 32 tokens of turns", {"": place_line("first")}),
        (
            "Divergence",
            "between student and teacher, in nats",
            {
                "mean": line(lambda credit: credit.divergence.mean),
                "p90": line(lambda credit: credit.divergence.p90),
                "p99": line(lambda credit: credit.divergence.p99),
            },
        ),
        (
            "Segments",
            "spans of raised weight, in a rollout that had a reference",
            {"": line(lambda credit: ratio_or_none(credit.segments, credit.scored))},
        ),
        (
            "Scored rollouts",
            "share of those learned from that had a reference",
            {"": line(lambda credit: ratio_or_none(credit.scored, credit.rollouts))},
        ),
        (
            "Other references",
            "of the credited tokens, how many a wrong reference credits too; low is good",
            {
                "the next group's": line(
                    lambda credit: credit.next_reference.overlap if credit.next_reference else None
                ),
                "its own, exchanged": line(lambda credit: credit.swapped.overlap if credit.swapped else None),
            },
        ),
    ]
    drawable = [(title, note, {name: line for name, line in lines.items() if line}) for title, note, lines in pictures]
    return [picture for picture in drawable if picture[2]]


def ratio_or_none(part: float, total: float) -> float | None:
    return part / total if total else None


def time_curve(metrics: Sequence[StepMetrics]) -> Curve | None:
    """The seconds of each step, stacked: the phases that took most of it, and the rest as one."""
    rows = [row for row in metrics if row.seconds]
    total = sum(row.seconds["total"] for row in rows)
    if not total:
        return None
    phases = dict.fromkeys(name for row in rows for name in row.seconds if name != "total")
    phase_seconds = {name: [row.seconds.get(name, 0.0) for row in rows] for name in phases}
    ordered_phases = sorted(
        (name for name in phase_seconds if sum(phase_seconds[name]) > 0), key=lambda name: -sum(phase_seconds[name])
    )
    stacked = {name: phase_seconds[name] for name in ordered_phases[: len(LINE_COLOURS) - 1]}
    remainder = [row.seconds["total"] - sum(values) for row, *values in zip(rows, *stacked.values(), strict=True)]
    if sum(remainder) > total / 1000:
        stacked["the rest"] = remainder
    description = ", ".join(f"{name} {100 * sum(values) / total:.0f} %" for name, values in stacked.items())
    steps = [row.step for row in rows]
    return plot_stack("Time", "seconds of a step, by phase", steps, parts=stacked, description=description)


def collect_points(metrics: Sequence[StepMetrics], get_value: Callable[[StepMetrics], float | None]) -> CurvePoints:
    return finite_points([(row.step, get_value(row)) for row in metrics])


def finite_points(pairs: Sequence[tuple[int, float | None]]) -> CurvePoints:
    """The points whose value was measured and is finite."""
    return [(step, float(value)) for step, value in pairs if value is not None and isfinite(value)]
