"""Rankings of tokens by a score: AUROC and average precision of the decisive ones, with intervals over groups."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.measure.statistics import Float64Array, jackknife_estimate

WeightedStatistics = Callable[[Float64Array], Sequence[float]]
"""Computes statistics of tokens, of which each counts `weight` times."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Tokens ordered by a score, highest first. Tokens of equal score form one step and are not ordered."""

    is_positive: NDArray[np.bool_]
    """Positive or negative, in that order."""
    order: NDArray[np.int64]
    step_ends: NDArray[np.int64]
    """Index of the last token of each step."""

    @classmethod
    def from_scores(cls, scores: NDArray[np.float32], is_positive: NDArray[np.bool_]) -> "Ranking":
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        step_ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(scores) - 1)
        return cls(is_positive[order], order, step_ends)

    def auroc_and_precision(self, weight: Float64Array) -> tuple[float, float]:
        """(AUROC, average precision) where each token counts `weight` times; NaN without a positive or a negative.

        AUROC = P(score of a positive > score of a negative) + P(equal) / 2. Average precision = sum over the steps of
        the recall that a step adds times the precision of all tokens down to its end.
        """
        ordered = weight[self.order]
        hits = _step_sums(np.where(self.is_positive, ordered, 0.0), self.step_ends)
        misses = _step_sums(np.where(self.is_positive, 0.0, ordered), self.step_ends)
        true_positives, false_positives = np.cumsum(hits), np.cumsum(misses)
        negatives_below = false_positives[-1] - false_positives
        with np.errstate(invalid="ignore", divide="ignore"):  # without a cluster there may be no positive
            auroc = (hits * (negatives_below + misses / 2)).sum() / (true_positives[-1] * false_positives[-1])
            precision = np.nansum(hits * (true_positives / (true_positives + false_positives))) / true_positives[-1]
        return float(auroc), float(precision)


def _step_sums(weight: Float64Array, step_ends: NDArray[np.int64]) -> Float64Array:
    """The weight of each step."""
    return np.diff(np.cumsum(weight)[step_ends], prepend=0.0)


def leave_one_out(statistics: WeightedStatistics, clusters: NDArray[np.int64]) -> Float64Array:
    """Each statistic (a row) of all tokens, then without each cluster in turn: what `jackknife_estimate` takes."""
    _, cluster_indices = np.unique(clusters, return_inverse=True)
    without = [(cluster_indices != cluster).astype(float) for cluster in range(int(cluster_indices.max()) + 1)]
    return np.array([statistics(weight) for weight in (np.ones(len(cluster_indices)), *without)], float).T


def ranking_estimates(
    arm_scores: Sequence[NDArray[Any]], decisive: NDArray[Any], among: NDArray[Any], groups: NDArray[Any]
) -> Mapping[str, Any] | None:
    """AUROC and average precision of one or two scores of the tokens in `among`, with intervals over groups."""
    positives = decisive[among]
    if not positives.any() or positives.all():
        return None
    rankings = [Ranking.from_scores(score[among], positives) for score in arm_scores]
    names = ("own", "shuffled", "own - shuffled") if len(arm_scores) == 2 else ("own",)

    def statistics(weight: Float64Array) -> list[float]:
        by_metric = zip(*(ranking.auroc_and_precision(weight) for ranking in rankings), strict=True)
        return [value for row in by_metric for value in (*row, *(row[0] - shuffled for shuffled in row[1:]))]

    estimates = [
        jackknife_estimate(row, is_share="-" not in name).to_json()
        for name, row in zip(names * 2, leave_one_out(statistics, groups[among]), strict=True)
    ]
    return {
        "share decisive": float(positives.mean()),
        "auroc": dict(zip(names, estimates[: len(names)], strict=True)),
        "average precision": dict(zip(names, estimates[len(names) :], strict=True)),
    }
