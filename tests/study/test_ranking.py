"""AUROC and average precision against pairs counted one by one, and without each task in turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgcd.measure.statistics import jackknife_estimate
from sgcd.study.ranking import Ranking, leave_one_out

TOKENS = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30)


def pairs(score: list[int], positive: list[bool]) -> float:
    wins = [
        (a > b) + (a == b) / 2
        for a, p in zip(score, positive, strict=True)
        if p
        for b, q in zip(score, positive, strict=True)
        if not q
    ]
    return sum(wins) / len(wins)


def precision(score: list[int], positive: list[bool]) -> float:
    """At each threshold: what it adds to the recall times how much of what it lets through is positive."""
    total, before = 0.0, 0
    for threshold in sorted(set(score), reverse=True):
        passed = [p for s, p in zip(score, positive, strict=True) if s >= threshold]
        total += (sum(passed) - before) / sum(positive) * sum(passed) / len(passed)
        before = sum(passed)
    return total


@given(TOKENS)
def test_both_figures_are_what_counting_gives_and_a_weight_is_so_many_copies(tokens: list[tuple[int, bool, int]]):
    copies = [(score, positive) for score, positive, times in tokens for _ in range(times)]
    score, positive = [s for s, _ in copies], [p for _, p in copies]
    ranking = Ranking.from_scores(np.array([s for s, _, _ in tokens], np.float32), np.array([p for _, p, _ in tokens]))
    auroc, average = ranking.auroc_and_precision(np.array([float(times) for _, _, times in tokens]))
    if not any(positive):
        assert np.isnan(auroc) and np.isnan(average)
    else:
        assert average == pytest.approx(precision(score, positive))
        assert np.isnan(auroc) if all(positive) else auroc == pytest.approx(pairs(score, positive))


def test_equal_scores_have_no_order():
    positive = np.array([True, False, True, False])
    assert Ranking.from_scores(np.ones(4, np.float32), positive).auroc_and_precision(np.ones(4)) == (0.5, 0.5)
    assert Ranking.from_scores(np.array([4, 3, 2, 1], np.float32), positive).auroc_and_precision(np.ones(4)) == (
        0.75,
        (1 + 2 / 3) / 2,
    )


def test_each_task_is_left_out_whole():
    tasks = np.array([7, 7, 2, 9])

    def sums(weight: np.ndarray) -> list[float]:
        return [float(weight @ [1, 2, 4, 8]), float(weight.sum())]

    assert leave_one_out(sums, tasks).tolist() == [[15, 11, 12, 7], [4, 3, 2, 3]]


def test_a_ranking_without_a_positive_has_no_value():
    ranking = Ranking.from_scores(np.arange(8, dtype=np.float32), np.arange(8) == 0)
    auroc, _ = leave_one_out(ranking.auroc_and_precision, np.arange(8))
    assert auroc[0] == 0.0
    assert np.isnan(auroc[1])
    assert jackknife_estimate(auroc, is_share=True).reason == "without one of its groups it has no value"
