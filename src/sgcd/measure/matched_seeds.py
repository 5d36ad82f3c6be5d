"""Differences of runs that share their seeds: t test, Holm's correction, and the difference that a study can detect."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sgcd.measure.statistics import Estimate, clip_interval, scipy_stats, t_interval

SIGNIFICANCE = 0.05
POWER = 0.8
"""The probability with which a study of this size finds its least detectable difference."""


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """The mean over seeds of a paired difference, with its t interval and test."""

    estimate: Estimate
    seeds: int
    sd: float | None
    """Standard deviation of the difference over seeds."""
    p: float | None
    """Two-sided, not corrected; None with fewer than two seeds, or where no seed differs from another."""
    detectable: float | None
    """The true difference that this many seeds with this spread find with probability POWER at SIGNIFICANCE."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, the estimate's fields beside the others."""
        fields = asdict(self)
        return {**fields.pop("estimate"), **fields}


def seed_difference(differences: ArrayLike) -> SeedDifference:
    """Compare two arms by one difference in success for each seed that both finished; intervals are cut to [-1, 1]."""
    x = np.asarray(differences, float)
    estimate, count = clip_interval(t_interval(x), -1.0, 1.0), len(x)
    if estimate.low is None:
        reason = {0: "no seed was finished on both sides", 1: "one seed: no interval and no p-value"}
        estimate = Estimate(estimate.value, reason=reason.get(count, estimate.reason))
        return SeedDifference(estimate, count, None, None, None)
    sd = float(x.std(ddof=1))
    statistic = float(x.mean()) / (sd / sqrt(count))
    p = float(2 * scipy_stats().t.sf(abs(statistic), count - 1))
    return SeedDifference(estimate, count, sd, p, least_detectable_difference(sd, count))


def correct_by_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction over all p-values that exist: the r-th smallest of m times m - r + 1, made monotone.

    >>> correct_by_holm([0.04, None, 0.01])
    [0.04, None, 0.02]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[index] = largest
    return corrected


def paired_power(difference: float, sd: float, seeds: int, significance: float = SIGNIFICANCE) -> float:
    """The probability that a two-sided paired t test over `seeds` finds a true difference, by the noncentral t."""
    stats, freedom = scipy_stats(), seeds - 1
    bound, centre = stats.t.ppf(1 - significance / 2, freedom), abs(difference) / sd * sqrt(seeds)
    below = float(stats.nct.cdf(-bound, freedom, centre))
    return float(stats.nct.sf(bound, freedom, centre)) + (below if isfinite(below) else 0.0)


def least_detectable_difference(
    sd: float, seeds: int, significance: float = SIGNIFICANCE, *, power: float = POWER
) -> float:
    """The smallest true difference that a paired t test finds with probability `power`, by bisection."""
    low, high = 0.0, sd
    while paired_power(high, sd, seeds, significance) < power:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        is_enough = paired_power(middle, sd, seeds, significance) >= power
        low, high = (low, middle) if is_enough else (middle, high)
    return high
