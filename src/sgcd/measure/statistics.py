"""How sure we are: intervals, paired comparisons, and what k trials of a task tell."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
LEVEL = 0.95
DRAWS = 9999
FEWEST = 5
"""Tasks that a bootstrap needs to draw from."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; where there is none, `reason` says why.

    >>> wilson(0, 0).reason
    'nothing was played'
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""
    """How the interval was made; empty where there is none."""
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


def stats() -> Any:
    """scipy.stats, imported when first needed: it takes half a second. It has no types, hence Any."""
    return import_module("scipy.stats")


def wilson(successes: int, trials: int, level: float = LEVEL) -> Estimate:
    """Share of successes in independent trials, one for each task, with Wilson's score interval.

    >>> e = wilson(8, 10); round(e.value, 2), round(e.low, 2), round(e.high, 2)
    (0.8, 0.49, 0.94)
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, got {successes} of {trials}")
    if trials == 0:
        return Estimate(None, reason="nothing was played")
    interval = stats().binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return Estimate(successes / trials, float(interval.low), float(interval.high), "wilson")


def clustered(successes: Sequence[int], trials: Sequence[int], level: float = LEVEL) -> Estimate:
    """Mean over tasks of a task's share of successes, every task counting the same, with an interval clustered by task.

    value +- t(T - 1) sd(task means) / sqrt(T), cut to [0, 1]: several trials of one task are no independent evidence,
    so only the spread between tasks counts. Where all or no trials succeed that spread is zero and says nothing; then
    each task counts as one trial of Wilson's interval. Tasks without a trial are left out.
    """
    done = [(c, n) for c, n in zip(successes, trials, strict=True) if n > 0]
    means = np.array([c / n for c, n in done])
    if np.any((means < 0) | (means > 1)):
        raise ValueError("expected 0 <= successes <= trials for every task")
    if len(means) and (means.max() == 0 or means.min() == 1):
        extreme = wilson(len(means) if means[0] else 0, len(means), level)
        return Estimate(extreme.value, extreme.low, extreme.high, "wilson over tasks")
    return within(spread(means, level), 0.0, 1.0)


def spread(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """The mean of independent values with Student's t interval: mean +- t(n - 1) sd / sqrt(n)."""
    x = np.asarray(values, float)
    if len(x) == 0:
        return Estimate(None, reason="nothing was played")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, reason="one value has no spread")
    if np.ptp(x) == 0:
        return Estimate(mean, reason=f"all {len(x)} values are equal")
    half = float(stats().t.ppf((1 + level) / 2, len(x) - 1)) * float(x.std(ddof=1)) / sqrt(len(x))
    return Estimate(mean, mean - half, mean + half, f"clustered, t with {len(x) - 1} degrees of freedom")


def within(estimate: Estimate, floor: float, ceiling: float) -> Estimate:
    """The same interval, cut to where the value can lie."""
    if estimate.low is None or estimate.high is None:
        return estimate
    low, high = max(floor, estimate.low), min(ceiling, estimate.high)
    return Estimate(estimate.value, low, high, estimate.kind, estimate.reason)


def paired(a: ArrayLike, b: ArrayLike, seed: int = 0, level: float = LEVEL, draws: int = DRAWS) -> Estimate:
    """Mean over tasks of a's task mean minus b's, with a bootstrap over tasks (BCa).

    a and b list the same tasks in the same order. Fewer than five tasks are too few to draw from.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected one number for each task on each side, got {first.shape} and {second.shape}")
    difference = first - second
    if len(difference) == 0:
        return Estimate(None, reason="no task was played on both sides")
    mean = float(difference.mean())
    if len(difference) < FEWEST:
        return Estimate(mean, reason=f"too few tasks for a bootstrap: {len(difference)}")
    if np.ptp(difference) < 1e-12:
        return Estimate(mean, reason=f"the difference is the same on all {len(difference)} tasks")
    drawn = stats().bootstrap(
        (difference,), np.mean, n_resamples=draws, batch=500, vectorized=True, method="BCa", confidence_level=level,
        random_state=np.random.default_rng(seed),
    )  # fmt: skip
    interval = drawn.confidence_interval
    if not np.isfinite([interval.low, interval.high]).all():
        return Estimate(mean, reason="the bootstrap's draws leave no interval")
    return Estimate(mean, float(interval.low), float(interval.high), "bootstrap over tasks (BCa)")


def paired_runs(
    a: ArrayLike, b: ArrayLike, matched: bool, seed: int = 0, level: float = LEVEL, draws: int = DRAWS
) -> Estimate:
    """Mean difference between the runs of two sides (arrays: runs x tasks), bootstrapped over seeds, then tasks.

    A draw takes runs anew on each side (the same ones on both where `matched`: run i of a and run i of b share a seed),
    then tasks anew, the same for all runs since all play the same tasks. n - 1 of n are taken, which makes the variance
    over few seeds unbiased (Rao and Wu 1988); the percentiles of three or four seeds are still too narrow by nature.
    """
    first, second = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    if first.shape[1] != second.shape[1] or (matched and first.shape != second.shape):
        raise ValueError(f"expected the same tasks (and runs, where matched), got {first.shape} and {second.shape}")
    tasks = first.shape[1]
    if tasks == 0:
        return Estimate(None, reason="no task was played on both sides")
    mean = float(first.mean() - second.mean())
    if len(first) < 2 or len(second) < 2:
        return Estimate(mean, reason="one run on a side: no spread between seeds")
    if tasks < FEWEST:
        return Estimate(mean, reason=f"too few tasks for a bootstrap: {tasks}")
    rng = np.random.default_rng(seed)
    # Counts instead of indices: a draw's mean is (run counts) @ values @ (task counts).
    runs_a = resample(rng, len(first), draws)
    runs_b = runs_a if matched else resample(rng, len(second), draws)
    chosen = resample(rng, tasks, draws)
    means = ((runs_a @ first - runs_b @ second) * chosen).sum(axis=1)
    if np.ptp(means) < 1e-12:
        return Estimate(mean, reason="no seed and no task differs from another")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    order = "matched seeds" if matched else "seeds"
    return Estimate(mean, float(low), float(high), f"bootstrap over {order}, then tasks (percentile)")


def resample(rng: np.random.Generator, size: int, draws: int) -> Numbers:
    """Weights of `size` things in each draw of size - 1 of them with replacement; they sum to one."""
    return rng.multinomial(size - 1, np.full(size, 1 / size), size=draws) / (size - 1)


def sign_flips(a: ArrayLike, b: ArrayLike, seed: int = 0, draws: int = DRAWS) -> float | None:
    """Two-sided p of the paired permutation test over tasks; None where no task differs."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    if not np.any(difference):
        return None
    drawn = stats().permutation_test(
        (difference,), np.mean, permutation_type="samples", vectorized=True, n_resamples=draws, batch=500,
        random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return float(drawn.pvalue)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float | None:
    """Exact two-sided p for single passes over the same tasks: are the tasks that only one side solves split evenly?

    None where both sides solve the same tasks.
    """
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    if first.shape != second.shape:
        raise ValueError(f"expected the same tasks on both sides, got {first.shape} and {second.shape}")
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    if only_a + only_b == 0:
        return None
    return float(stats().binomtest(only_a, only_a + only_b).pvalue)


def pass_at_k(successes: Sequence[int], trials: Sequence[int], k: int) -> float | None:
    """Chance that at least one of k trials succeeds: the mean over tasks of 1 - C(n - c, k) / C(n, k).

    >>> pass_at_k([1, 0], [2, 2], 2)
    0.5
    """
    return over_tasks([1 - comb(n - c, k) / comb(n, k) for c, n in counts(successes, trials, k)])


def pass_hat_k(successes: Sequence[int], trials: Sequence[int], k: int) -> float | None:
    """Chance that all of k trials succeed (pass^k): the mean over tasks of C(c, k) / C(n, k).

    >>> pass_hat_k([1, 2], [2, 2], 2)
    0.5
    """
    return over_tasks([comb(c, k) / comb(n, k) for c, n in counts(successes, trials, k)])


def counts(successes: Sequence[int], trials: Sequence[int], k: int) -> list[tuple[int, int]]:
    """(c, n) of every task, refused where k cannot be answered from n trials."""
    both = list(zip(successes, trials, strict=True))
    for c, n in both:
        if not 0 <= c <= n:
            raise ValueError(f"expected 0 <= successes <= trials, got {c} of {n}")
        if not 1 <= k <= n:
            raise ValueError(f"expected 1 <= k <= {n}, the trials of a task, got k = {k}")
    return both


def over_tasks(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
