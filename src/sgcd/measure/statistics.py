"""Confidence intervals, paired comparisons, and pass@k and pass^k over the trials of a task."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]
CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 9999
MIN_TASKS = 5
"""An interval over fewer tasks is refused."""


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
    quantile = float(scipy_stats().t.ppf((1 + level) / 2, num_tasks - 1))
    centre = (mean * effective + quantile**2 / 2) / (effective + quantile**2)
    half_width = quantile * sqrt(mean * (1 - mean) * effective + quantile**2 / 4) / (effective + quantile**2)
    kind = f"clustered, wilson with {effective:.0f} effective trials"
    return Estimate(mean, max(0.0, centre - half_width), min(1.0, centre + half_width), kind)


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
    half_width = float(scipy_stats().t.ppf((1 + level) / 2, len(x) - 1)) * float(x.std(ddof=1)) / sqrt(len(x))
    return Estimate(mean, mean - half_width, mean + half_width, f"clustered, t with {len(x) - 1} degrees of freedom")


def clip_interval(estimate: Estimate, floor: float, ceiling: float) -> Estimate:
    """Cut the interval to the range of possible values."""
    if estimate.low is None or estimate.high is None:
        return estimate
    low, high = max(floor, estimate.low), min(ceiling, estimate.high)
    return Estimate(estimate.value, low, high, estimate.kind, estimate.reason)


def paired_interval(a: ArrayLike, b: ArrayLike, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Mean over tasks of a's task mean minus b's, with Student's t interval over tasks, cut to [-1, 1].

    a and b list the same tasks in the same order. Fewer than five tasks are too few.
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


def paired_runs_interval(a: ArrayLike, b: ArrayLike, matched: bool, level: float = CONFIDENCE_LEVEL) -> Estimate:
    """Mean difference between the runs of two sides (arrays: runs x tasks), with a t interval over seeds and tasks.

    Runs and tasks are crossed samples: all runs play the same tasks. The variance of the mean is that of the run
    means, plus that of the task means, less that of the residuals, which both contain; it is at least the larger of the
    two. Satterthwaite's rule gives its degrees of freedom. `matched`: run i of a and run i of b share a seed, so only
    their difference counts.
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
    sides = [first - second] if matched else [first, second]
    task_means = first.mean(axis=0) - second.mean(axis=0)
    run_parts = [(float(side.mean(axis=1).var(ddof=1)) / len(side), len(side) - 1) for side in sides]
    parts = [*run_parts, (float(task_means.var(ddof=1)) / num_tasks, num_tasks - 1)]
    residuals = [_residual_variance(side) for side in sides]
    total = sum(variance for variance, _ in parts)
    variance = max(total - sum(residual for residual, _ in residuals), *(variance for variance, _ in parts))
    if variance < 1e-18:
        return Estimate(mean, reason="no seed and no task differs from another")
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in (*parts, *residuals))
    half_width = float(scipy_stats().t.ppf((1 + level) / 2, max(degrees, 1.0))) * sqrt(variance)
    kind = f"t over {'matched seeds' if matched else 'seeds'} and tasks"
    return clip_interval(Estimate(mean, mean - half_width, mean + half_width, kind), -1.0, 1.0)


def _residual_variance(side: Float64Array) -> tuple[float, int]:
    """The variance of the mean that neither runs nor tasks explain (runs x tasks), and its degrees of freedom."""
    num_runs, num_tasks = side.shape
    residuals = side - side.mean(axis=1, keepdims=True) - side.mean(axis=0, keepdims=True) + side.mean()
    freedom = (num_runs - 1) * (num_tasks - 1)
    return float((residuals**2).sum()) / freedom / side.size, freedom


def draw_resample_weights(rng: np.random.Generator, size: int, num_resamples: int) -> Float64Array:
    """Weights of `size` items in draws of size - 1 items with replacement; each draw's weights sum to one."""
    return rng.multinomial(size - 1, np.full(size, 1 / size), size=num_resamples) / (size - 1)


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
