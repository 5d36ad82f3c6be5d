"""How well a score finds the decisive tokens: AUROC and average precision, ties counted right, clustered intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgcd.measure.statistics import FEWEST, LEVEL, Estimate, Numbers, resample

DRAWS = 1000
Figures = Callable[[Numbers], Sequence[float]]
"""Some figures of tokens that count `weight` times each."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Tokens in the order of a score, the highest first; tokens of equal score form one step, and have no order."""

    positive: NDArray[np.bool_]
    """In that order."""
    order: NDArray[np.int64]
    steps: NDArray[np.int64]
    """Where each step ends."""

    @classmethod
    def of(cls, score: NDArray[np.float32], positive: NDArray[np.bool_]) -> "Ranking":
        order = np.argsort(-score, kind="stable")
        ordered = score[order]
        steps = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(score) - 1)
        return cls(positive[order], order, steps)

    def figures(self, weight: Numbers) -> tuple[float, float]:
        """(AUROC, average precision), each token counting `weight` times; NaN without a positive or a negative.

        AUROC = P(score of a positive > score of a negative) + P(equal) / 2. Average precision = over the steps, the
        recall that a step adds times the precision of all that stands down to its end.
        """
        ordered = weight[self.order]
        hits = _sums(np.where(self.positive, ordered, 0.0), self.steps)
        misses = _sums(np.where(self.positive, 0.0, ordered), self.steps)
        found, passed = np.cumsum(hits), np.cumsum(misses)
        below = passed[-1] - passed
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw may leave out all positives, or a whole step
            auroc = (hits * (below + misses / 2)).sum() / (found[-1] * passed[-1])
            precision = np.nansum(hits * (found / (found + passed))) / found[-1]
        return float(auroc), float(precision)


def _sums(weight: Numbers, steps: NDArray[np.int64]) -> Numbers:
    """The weight of each step."""
    return np.diff(np.cumsum(weight)[steps], prepend=0.0)


def bootstrap(figures: Figures, clusters: NDArray[np.int64], seed: int = 0) -> list[Estimate]:
    """Each figure with the percentiles of draws of whole clusters; the draws are the same for all of them.

    Tokens of one rollout, and rollouts of one task, hang together: only another task is new evidence.
    """
    _, numbers = np.unique(clusters, return_inverse=True)
    count = int(numbers.max()) + 1
    values = [value if np.isfinite(value) else None for value in figures(np.ones(len(numbers)))]
    if count < FEWEST:
        return [Estimate(value, reason=f"too few tasks for a bootstrap: {count}") for value in values]
    draws = resample(np.random.default_rng(seed), count, DRAWS)
    drawn = np.array([figures(weights[numbers]) for weights in draws]).T
    return [_estimate(value, some) for value, some in zip(values, drawn, strict=True)]


def _estimate(value: float | None, drawn: Numbers) -> Estimate:
    if value is None or not np.isfinite(drawn).all():
        return Estimate(value, reason="decisive tokens are in too few tasks for a bootstrap")
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), "bootstrap over tasks (percentile)")
