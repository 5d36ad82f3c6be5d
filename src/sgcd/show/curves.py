"""What a run was from step to step, as small pictures: success, reward, loss, credit, time."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, cast

from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import MODES, select_evaluation
from sgcd.show.drawing import LINE_COLOURS, TRAILING_STEPS, Curve, CurvePoints, plot_intervals, plot_lines, plot_stack
from sgcd.show.svg import default_style

Row = Mapping[str, Any]
_UNIT_RANGE_TITLES = ("Mixed groups", "Where credit falls", "Scored rollouts", "Neighbour's reference")
"""Pictures that always run from zero to one."""
_METRIC_CURVES = (
    ("loss", "Loss", "the surrogate, before each step"),
    ("grad_norm", "Gradient", "its norm before clipping"),
    ("kl", "KL", "to the initial policy, in nats a token"),
    ("clip_share", "Clip share", "tokens at the bound of the ratio"),
    ("entropy", "Entropy", "of the policy where it spoke, in nats"),
)


def build_curves(
    metrics: Sequence[Row], evaluations: Sequence[Row], split: str | None
) -> tuple[list[Curve], list[str]]:
    """Whatever there is to draw, and in words what was the same in every step; what was not measured is left out."""
    with default_style():
        return _build_curves(metrics, evaluations, split)


def _build_curves(
    metrics: Sequence[Row], evaluations: Sequence[Row], split: str | None
) -> tuple[list[Curve], list[str]]:
    plotted = [success_curve(evaluations, split), reward_curve(metrics)]
    unchanged: list[str] = []
    mixed_groups_curve = (
        "Mixed groups",
        "tasks whose siblings did not agree",
        {"": collect_points(metrics, mixed_share)},
    )
    metric_curves = [
        (title, note, {"": collect_points(metrics, lambda row, metric=key: row.get(metric))})
        for key, title, note in _METRIC_CURVES
    ]
    for title, note, lines in (mixed_groups_curve, *metric_curves, *credit_curves(metrics)):
        if is_constant(lines):
            unchanged += [f"{title.lower()} {name} {line[0][1]:.4g}".replace("  ", " ") for name, line in lines.items()]
        elif any(lines.values()):
            plotted.append(plot_lines(title, note, lines, unit_range=title in _UNIT_RANGE_TITLES))
    return [curve for curve in (*plotted, time_curve(metrics)) if curve], unchanged


def is_constant(lines: Mapping[str, CurvePoints]) -> bool:
    return all(line and len({value for _, value in line}) == 1 for line in lines.values())


def success_curve(evaluations: Sequence[Row], split: str | None) -> Curve | None:
    """Success on held-out tasks at every evaluation, by mode, with intervals."""
    rows = [dict(row) for row in evaluations if row["split"] == split]
    steps = sorted({row["step"] for row in rows})
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


def reward_curve(metrics: Sequence[Row]) -> Curve | None:
    """Mean reward of everything a step played; where rewards are not just success, both."""
    lines = {"reward": collect_points(metrics, lambda row: row["reward"])}
    success_points = collect_points(metrics, lambda row: row["success"])
    if success_points != lines["reward"]:
        lines["success"] = success_points
    if not any(lines.values()):
        return None
    return plot_lines(
        "Training reward",
        f"of each step, and the mean of {TRAILING_STEPS} steps",
        lines,
        unit_range=True,
        with_mean=True,
    )


def credit_curves(metrics: Sequence[Row]) -> list[tuple[str, str, dict[str, CurvePoints]]]:
    """What steps tell of their credit; nothing for a method that needs no reference."""

    def line(*path: str) -> CurvePoints:
        return collect_points(metrics, lambda row: value_at_path(row, "credit", *path))

    def share(part: str, total: str) -> CurvePoints:
        return collect_points(
            metrics, lambda row: ratio_or_none(value_at_path(row, "credit", part), value_at_path(row, "credit", total))
        )

    kinds = dict.fromkeys(kind for row in metrics for kind in value_at_path(row, "credit", "where") or ())
    pictures: list[tuple[str, str, dict[str, CurvePoints]]] = [
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
    drawable = [(title, note, {name: line for name, line in lines.items() if line}) for title, note, lines in pictures]
    return [picture for picture in drawable if picture[2]]


def value_at_path(row: Any, *path: str) -> Any:
    """What lies at a path of keys; None where there is no such thing."""
    for key in path:
        row = cast(Row, row).get(key) if isinstance(row, dict) else None
    return row


def ratio_or_none(part: float | None, total: float | None) -> float | None:
    return part / total if part is not None and total else None


def time_curve(metrics: Sequence[Row]) -> Curve | None:
    """Where the time of each step went, stacked: the phases that took most of it, and the rest as one."""
    rows = [row for row in metrics if row.get("seconds")]
    total = sum(row["seconds"]["total"] for row in rows)
    if not total:
        return None
    phases = dict.fromkeys(name for row in rows for name in row["seconds"] if name != "total")
    phase_seconds = {name: [row["seconds"].get(name, 0.0) for row in rows] for name in phases}
    ordered_phases = sorted(
        (name for name in phase_seconds if sum(phase_seconds[name]) > 0), key=lambda name: -sum(phase_seconds[name])
    )
    stacked = {name: phase_seconds[name] for name in ordered_phases[: len(LINE_COLOURS) - 1]}
    remainder = [row["seconds"]["total"] - sum(values) for row, *values in zip(rows, *stacked.values(), strict=True)]
    if sum(remainder) > total / 1000:
        stacked["the rest"] = remainder
    description = ", ".join(f"{name} {100 * sum(values) / total:.0f} %" for name, values in stacked.items())
    return plot_stack("Time", "seconds of a step, by phase", [row["step"] for row in rows], stacked, description)


def mixed_share(row: Row) -> float | None:
    return ratio_or_none(row["mixed"], row["tasks"])


def collect_points(metrics: Sequence[Row], get_value: Callable[[Row], Any]) -> CurvePoints:
    return finite_points([(row["step"], get_value(row)) for row in metrics])


def finite_points(pairs: Sequence[tuple[int, Any]]) -> CurvePoints:
    """Those that are numbers, and finite."""
    return [(step, float(value)) for step, value in pairs if isinstance(value, int | float) and isfinite(value)]
