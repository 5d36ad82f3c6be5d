"""Simulates how often the intervals of evaluations and comparisons hold the truth; writes the table in docs/log."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.measure.statistics import (
    Estimate,
    Float64Array,
    clustered_interval,
    paired_interval,
    paired_runs_interval,
    wilson_interval,
)

_DOCS = Path(__file__).parent
_ALLOWED = (0.93, 0.97)
Draw = Callable[[np.random.Generator], tuple[Estimate, float]]
"""One simulated interval and the truth that it should hold."""


def draw_rate(tasks: int, trials: int, rate: float) -> Draw:
    """Tasks whose own rates are beta distributed, so that the trials of a task go together."""

    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        successes = rng.binomial(trials, rng.beta(2 * rate, 2 * (1 - rate), tasks)).tolist()
        interval = wilson_interval(sum(successes), tasks) if trials == 1 else None
        return interval or clustered_interval(successes, [trials] * tasks), rate

    return draw


def draw_paired(tasks: int, trials: int) -> Draw:
    """A side whose success is the square root of the other's: the mean difference of Beta(1, 1.5) rates is .189."""

    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        rate = rng.beta(1, 1.5, tasks)
        a, b = rng.binomial(trials, rate**0.5) / trials, rng.binomial(trials, rate) / trials
        return paired_interval(a, b), 1.5 * np.pi / 8 - 0.4

    return draw


def draw_runs(seeds: int, tasks: int, matched: bool) -> Draw:
    """Runs that differ by seed, by task, and by both; three trials' worth of noise; the true difference is .1."""

    def draw(rng: np.random.Generator) -> tuple[Estimate, float]:
        effect = rng.normal(0.1, 0.15, tasks)

        def play(mean: Float64Array | float) -> Float64Array:
            return mean + rng.normal(0, 0.05, (seeds, 1)) + rng.normal(0, 0.2, (seeds, tasks))

        base = rng.normal(0, 0.2, tasks)
        return paired_runs_interval(play(base + effect), play(base), matched), 0.1

    return draw


def list_cases() -> list[tuple[str, str, Draw, int]]:
    """(interval, setting, draw, how many draws) of each row of the table."""
    return [
        *(
            ("one trial a task", f"{n} tasks, p = {p}", draw_rate(n, 1, p), 1000)
            for n in (20, 57, 200)
            for p in (0.5, 0.9)
        ),
        *(
            ("several trials a task", f"{n} tasks, {k} trials, p = {p}", draw_rate(n, k, p), 1000)
            for n in (8, 20, 57, 200)
            for k in (2, 4)
            for p in (0.5, 0.9)
        ),
        *(
            ("paired difference", f"{n} tasks, {k} trials", draw_paired(n, k), 1000)
            for n in (8, 20, 57, 200)
            for k in (1, 3)
        ),
        *(
            ("matched seeds" if matched else "seeds", f"{seeds} seeds, {n} tasks", draw_runs(seeds, n, matched), 1000)
            for matched in (True, False)
            for seeds in (2, 3, 5, 10)
            for n in (20, 200)
        ),
    ]


def simulate_coverage(draw: Draw, number: int, seed: int) -> float:
    """The share of intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(number):
        estimate, truth = draw(rng)
        held += estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high
    return held / number


def build_table(result: dict[str, Any]) -> str:
    """The page: a row for each case, and which rows lie outside."""
    rows = [
        f"| {row['interval']} | {row['setting']} | {row['draws']} | {row['coverage']:.3f} | {name_verdict(row)} |"
        for row in result["rows"]
    ]
    return "\n".join(
        [
            "# Coverage of the intervals",
            "",
            "How often a 95 % interval holds the truth, simulated by `python docs/write_coverage.py` (seed 0), which",
            f"writes this page. Within {_ALLOWED[0]} to {_ALLOWED[1]} is a pass; below is narrow, above is wide.",
            "A wide interval errs on the safe side.",
            "",
            "| interval | setting | draws | coverage | verdict |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def name_verdict(row: dict[str, Any]) -> str:
    """
    >>> [name_verdict({"coverage": coverage}) for coverage in (0.95, 0.9, 0.99)]
    ['pass', 'narrow', 'wide']
    """
    low, high = _ALLOWED
    return "narrow" if row["coverage"] < low else "wide" if row["coverage"] > high else "pass"


def main() -> None:
    rows = [
        {"interval": name, "setting": setting, "draws": number, "coverage": simulate_coverage(draw, number, seed=0)}
        for name, setting, draw, number in list_cases()
    ]
    result = {"schema": 1, "rows": rows}
    (_DOCS / "coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    (_DOCS / "log" / "coverage.md").write_text(build_table(result))
    sys.stdout.write(build_table(result))


if __name__ == "__main__":
    main()
