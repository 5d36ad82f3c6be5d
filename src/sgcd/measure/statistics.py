"""Confidence intervals, paired comparisons, and pass@k and pass^k over the trials of a task."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]
CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 9999
MIN_TASKS = 5
"""A difference or a statistic over fewer tasks has no interval."""
MIN_TWO_WAY_SEEDS = 3
"""With fewer seeds on a side, the spread between tasks has no part in the interval of a difference."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval, or with the `reason` why it has none.

    >>> wilson_interval(0, 0).reason
    'nothing was played'
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""
    """The method of the interval; empty without one."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


def scipy_stats() -> Any:
    """Import scipy.stats at first use, because the import takes half a second. It has no types, hence Any."""
    return import_module("scipy.stats")


def wilson_interval(successes: int, trials: int, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Share of successes in independent trials, one for each task, with Wilson's score interval.

    >>> e = wilson_interval(8, 10); round(e.value, 2), round(e.low, 2), round(e.high, 2)
    (0.8, 0.49, 0.94)
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, got {successes} of {trials}")
    if trials == 0:
        return Estimate(None, reason="nothing was played")
    interval = scipy_stats().binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return Estimate(successes / trials, float(interval.low), float(interval.high), "wilson")


def clustered_interval(successes: Sequence[int], trials: Sequence[int], level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Mean over tasks of a task's share of successes, every task counting the same, with an interval clustered by task.

    Several trials of one task are no independent evidence, so only the spread between tasks counts. The interval is
    Wilson's for the effective number of trials T m (1 - m) / var(task means), at most all of them, with the quantile of
    t(T - 1) (Korn and Graubard 1998); m is the mean. Unlike mean +- t sd / sqrt(T) it covers near 0 and 1 too. Where
    all or no trials succeed, each task counts as one trial. Tasks without a trial are left out.
    """
    played_tasks = [(c, n) for c, n in zip(successes, trials, strict=True) if n > 0]
    task_means = np.array([c / n for c, n in played_tasks])
    if np.any((task_means < 0) | (task_means > 1)):
        raise ValueError("expected 0 <= successes <= trials for every task")
    if len(task_means) and (task_means.max() == 0 or task_means.min() == 1):
        estimate = wilson_interval(len(task_means) if task_means[0] else 0, len(task_means), level)
        return replace(estimate, kind="wilson over tasks")
    plain = t_interval(task_means, level)
    if plain.value is None or plain.low is None:
        return plain
    mean, spread, num_tasks = plain.value, float(task_means.var(ddof=1)), len(task_means)
    effective = min(num_tasks * mean * (1 - mean) / spread, sum(n for _, n in played_tasks))
    quantile = t_quantile(num_tasks - 1, level)
    centre = (mean * effective + quantile**2 / 2) / (effective + quantile**2)
    half_width = quantile * sqrt(mean * (1 - mean) * effective + quantile**2 / 4) / (effective + quantile**2)
    kind = f"clustered, wilson with {effective:.0f} effective trials"
    return Estimate(mean, max(0.0, centre - half_width), min(1.0, centre + half_width), kind)


@cache
def t_quantile(degrees_of_freedom: float, level: float = CONFIDENCE_LEVEL) -> float:
    """The quantile that Student's t stays below in absolute value with probability `level`."""
    return float(scipy_stats().t.ppf((1 + level) / 2, degrees_of_freedom))


def t_interval(values: ArrayLike, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """The mean of independent values with Student's t interval: mean +- t(n - 1) sd / sqrt(n)."""
    x = np.asarray(values, float)
    if len(x) == 0:
        return Estimate(None, reason="nothing was played")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, reason="one value has no spread")
    if np.ptp(x) == 0:
        return Estimate(mean, reason=f"all {len(x)} values are equal")
    half_width = t_quantile(len(x) - 1, level) * float(x.std(ddof=1)) / sqrt(len(x))
    return Estimate(mean, mean - half_width, mean + half_width, f"t with {len(x) - 1} degrees of freedom")


def clip_interval(estimate: Estimate, floor: float, ceiling: float) -> Estimate:
    """Cut the interval to the range of possible values."""
    if estimate.low is None or estimate.high is None:
        return estimate
    low, high = max(floor, estimate.low), min(ceiling, estimate.high)
    return Estimate(estimate.value, low, high, estimate.kind, estimate.reason)


def paired_interval(a: ArrayLike, b: ArrayLike, *, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Mean over tasks of a's task mean minus b's, with Student's t interval over tasks, cut to [-1, 1].

    a and b list the same tasks in the same order.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected one number for each task on each side, got {first.shape} and {second.shape}")
    difference = first - second
    if len(difference) == 0:
        return Estimate(None, reason="no task was played on both sides")
    mean = float(difference.mean())
    if len(difference) < MIN_TASKS:
        return Estimate(mean, reason=f"too few tasks for an interval: {len(difference)}")
    if np.ptp(difference) < 1e-12:
        return Estimate(mean, reason=f"the difference is the same on all {len(difference)} tasks")
    return replace(clip_interval(t_interval(difference, level), -1.0, 1.0), kind="paired by task, t")


def paired_runs_interval(a: ArrayLike, b: ArrayLike, matched: bool, *, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Mean difference between the runs of two sides (arrays: runs x tasks), with an interval over seeds and tasks.

    Runs of both sides share their seeds where `matched`: run i of a and run i of b. All runs play the same tasks. See
    `two_way_variance` for the variance. Two seeds have too little to say about their own spread for Satterthwaite's
    degrees of freedom; then it is t over the means of the seeds alone.
    """
    first, second = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    if first.shape[1] != second.shape[1] or (matched and first.shape != second.shape):
        raise ValueError(f"expected the same tasks (and runs, where matched), got {first.shape} and {second.shape}")
    num_tasks = first.shape[1]
    if num_tasks == 0:
        return Estimate(None, reason="no task was played on both sides")
    mean = float(first.mean() - second.mean())
    if len(first) < 2 or len(second) < 2:
        return Estimate(mean, reason="one run on a side: no spread between seeds")
    if num_tasks < MIN_TASKS:
        return Estimate(mean, reason=f"too few tasks for an interval: {num_tasks}")
    variance, degrees_of_freedom = two_way_variance([first - second] if matched else [first, -second])
    if variance < 1e-24:
        return Estimate(mean, reason="no seed differs from another")
    half_width = t_quantile(degrees_of_freedom, level) * sqrt(variance)
    kind = f"t over {'matched seeds' if matched else 'seeds'}"
    kind += "" if min(len(first), len(second)) < MIN_TWO_WAY_SEEDS else " and tasks"
    return clip_interval(Estimate(mean, mean - half_width, mean + half_width, kind), -1.0, 1.0)


def two_way_variance(sides: Sequence[Float64Array]) -> tuple[float, float]:
    """The variance of the sum of the sides' means (arrays: runs x tasks), and its degrees of freedom.

    V = sum over sides of var(seed means) / S  +  max(0, var(task sums) / T - sum over sides of var(residuals) / (S T))
    for S seeds and T tasks: the spread of seeds already counts the noise of single trials, so it is taken out of the
    spread of tasks. The degrees of freedom are Satterthwaite's.
    """
    num_tasks = sides[0].shape[1]
    parts = [(float(side.mean(axis=1).var(ddof=1)) / len(side), len(side) - 1) for side in sides]
    if min(len(side) for side in sides) >= MIN_TWO_WAY_SEEDS:
        task_part = float(np.sum([side.mean(axis=0) for side in sides], axis=0).var(ddof=1)) / num_tasks
        noise = 0.0
        for side in sides:
            residuals = side - side.mean(axis=1, keepdims=True) - side.mean(axis=0) + side.mean()
            noise += float(np.square(residuals).sum()) / ((len(side) - 1) * (num_tasks - 1)) / side.size
        parts.append((max(0.0, task_part - noise), num_tasks - 1))
    variance, terms = sum(part for part, _ in parts), sum(part**2 / freedom for part, freedom in parts)
    return variance, variance**2 / terms if terms else 1.0


def jackknife_estimate(values: Float64Array, *, is_share: bool = False) -> Estimate:
    """A statistic of all n groups, `values[0]`, with the jackknife interval from n statistics that leave one group out.

    value +- t(n - 1) sqrt((n - 1) / n sum of squared deviations). A share is taken on the scale of log(p / (1 - p)),
    where the interval covers near 0 and 1 as well. Rollouts of one task are correlated: only a group is new evidence.
    """
    value, count = float(values[0]), len(values) - 1
    if not np.isfinite(value):
        return Estimate(None, reason="it has no value")
    if count < MIN_TASKS:
        return Estimate(value, reason=f"too few groups for an interval: {count}")
    if not np.isfinite(values).all():
        return Estimate(value, reason="without one of its groups it has no value")
    if np.ptp(values) < 1e-12:
        return Estimate(value, reason="it is the same without any of its groups")
    if is_share and not np.all((values > 0) & (values < 1)):
        return Estimate(value, reason="it is 0 or 1 without one of its groups")
    scaled = np.log(values / (1 - values)) if is_share else values
    error = sqrt((count - 1) / count * float(np.square(scaled[1:] - scaled[1:].mean()).sum()))
    ends = scaled[0] + t_quantile(count - 1) * error * np.array([-1.0, 1.0])
    low, high = 1 / (1 + np.exp(-ends)) if is_share else ends
    return Estimate(value, float(low), float(high), f"jackknife over {count} groups")


def permutation_test(a: ArrayLike, b: ArrayLike, seed: int = 0, *, num_resamples: int = NUM_RESAMPLES) -> float | None:
    """Two-sided p of the paired permutation test over tasks; None for a single task, or where no task differs."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    if difference.size < 2 or not np.any(difference):
        return None
    test_result = scipy_stats().permutation_test(
        (difference,), np.mean, permutation_type="samples", vectorized=True, n_resamples=num_resamples, batch=500,
        random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test_result.pvalue)


def mcnemar_test(a: ArrayLike, b: ArrayLike) -> float | None:
    """Exact two-sided p for single passes over the same tasks: are the tasks that only one side solves split evenly?

    None where both sides solve the same tasks.
    """
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    if first.shape != second.shape:
        raise ValueError(f"expected the same tasks on both sides, got {first.shape} and {second.shape}")
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    if only_a + only_b == 0:
        return None
    return float(scipy_stats().binomtest(only_a, only_a + only_b).pvalue)


def pass_at_k(successes: Sequence[int], trials: Sequence[int], k: int) -> float | None:
    """Chance that at least one of k trials succeeds: the mean over tasks of 1 - C(n - c, k) / C(n, k).

    >>> pass_at_k([1, 0], [2, 2], 2)
    0.5
    """
    return mean_over_tasks([1 - comb(n - c, k) / comb(n, k) for c, n in check_counts(successes, trials, k)])


def pass_hat_k(successes: Sequence[int], trials: Sequence[int], k: int) -> float | None:
    """Chance that all of k trials succeed (pass^k): the mean over tasks of C(c, k) / C(n, k).

    >>> pass_hat_k([1, 2], [2, 2], 2)
    0.5
    """
    return mean_over_tasks([comb(c, k) / comb(n, k) for c, n in check_counts(successes, trials, k)])


def check_counts(successes: Sequence[int], trials: Sequence[int], k: int) -> list[tuple[int, int]]:
    """(c, n) of every task. Raises ValueError where a task has fewer than k trials."""
    pairs = list(zip(successes, trials, strict=True))
    for c, n in pairs:
        if not 0 <= c <= n:
            raise ValueError(f"expected 0 <= successes <= trials, got {c} of {n}")
        if not 1 <= k <= n:
            raise ValueError(f"expected 1 <= k <= {n}, the trials of a task, got k = {k}")
    return pairs


def mean_over_tasks(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Spearman's rank correlation of the finite pairs; None if one side does not vary.

    >>> round(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 5.0])), 2)
    0.5
    """
    finite = np.isfinite(first) & np.isfinite(second)
    first, second = first[finite], second[finite]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(scipy_stats().spearmanr(first, second).statistic)
