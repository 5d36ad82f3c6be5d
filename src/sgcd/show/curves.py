"""What a run was from step to step, as small pictures: success, reward, loss, credit, time."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, cast

from sgcd.measure.rows import MODES, one_evaluation
from sgcd.measure.summary import summarise
from sgcd.show.drawing import LINES, TRAILING, Curve, Points, bands, plot, stack
from sgcd.show.svg import plainly

Row = Mapping[str, Any]
SHARES = ("Mixed groups", "Where credit falls", "Scored rollouts", "Neighbour's reference")
"""Pictures that always run from zero to one."""
PLAIN = (
    ("loss", "Loss", "the surrogate, before each step"),
    ("grad_norm", "Gradient", "its norm before clipping"),
    ("kl", "KL", "to the initial policy, in nats a token"),
    ("clip_share", "Clip share", "tokens at the bound of the ratio"),
    ("entropy", "Entropy", "of the policy where it spoke, in nats"),
)


def curves(metrics: Sequence[Row], evaluations: Sequence[Row], split: str | None) -> tuple[list[Curve], list[str]]:
    """Whatever there is to draw, and in words what was the same in every step; what was not measured is left out."""
    with plainly():
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
            drawn.append(plot(title, note, lines, share=title in SHARES))
    return [curve for curve in (*drawn, seconds(metrics)) if curve], flat


def constant(lines: Mapping[str, Points]) -> bool:
    return all(line and len({value for _, value in line}) == 1 for line in lines.values())


def held_out(evaluations: Sequence[Row], split: str | None) -> Curve | None:
    """Success on held-out tasks at every evaluation, by mode, with intervals."""
    rows = [dict(row) for row in evaluations if row["split"] == split]
    steps = sorted({row["step"] for row in rows})
    modes = {step: summarise(one_evaluation(rows, split, step))["modes"] for step in steps}
    rates = {mode: [(step, told[mode]["overall"]) for step, told in modes.items() if mode in told] for mode in MODES}
    rates = {mode: [(step, rate) for step, rate in found if rate["value"] is not None] for mode, found in rates.items()}
    rates = {mode: found for mode, found in rates.items() if found}
    return bands("Success", f"on held-out {split} tasks, with 95 % intervals", rates) if rates else None


def training(metrics: Sequence[Row]) -> Curve | None:
    """Mean reward of everything a step played; where rewards are not just success, both."""
    lines = {"reward": points(metrics, lambda row: row["reward"])}
    wins = points(metrics, lambda row: row["success"])
    if wins != lines["reward"]:
        lines["success"] = wins
    if not any(lines.values()):
        return None
    return plot("Training reward", f"of each step, and the mean of {TRAILING} steps", lines, share=True, mean=True)


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
    """Where the time of each step went, stacked: the phases that took most of it, and the rest as one."""
    rows = [row for row in metrics if row.get("seconds")]
    total = sum(row["seconds"]["total"] for row in rows)
    if not total:
        return None
    phases = dict.fromkeys(name for row in rows for name in row["seconds"] if name != "total")
    spent = {name: [row["seconds"].get(name, 0.0) for row in rows] for name in phases}
    order = sorted((name for name in spent if sum(spent[name]) > 0), key=lambda name: -sum(spent[name]))
    shown = {name: spent[name] for name in order[: len(LINES) - 1]}
    rest = [row["seconds"]["total"] - sum(values) for row, *values in zip(rows, *shown.values(), strict=True)]
    if sum(rest) > total / 1000:
        shown["the rest"] = rest
    told = ", ".join(f"{name} {100 * sum(values) / total:.0f} %" for name, values in shown.items())
    return stack("Time", "seconds of a step, by phase", [row["step"] for row in rows], shown, told)


def mixed(row: Row) -> float | None:
    return ratio(row["mixed"], row["tasks"])


def points(metrics: Sequence[Row], read: Callable[[Row], Any]) -> Points:
    return numbers([(row["step"], read(row)) for row in metrics])


def numbers(found: Sequence[tuple[int, Any]]) -> Points:
    """Those that are numbers, and finite."""
    return [(step, float(value)) for step, value in found if isinstance(value, int | float) and isfinite(value)]
