"""AUROC and average precision against pairs counted one by one, and what the bootstrap draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgcd.study.ranking import Ranking, bootstrap_estimates

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


def test_whole_tasks_are_drawn_and_the_interval_knows_how_few_there_are():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 50)
    level = rng.normal(size=12)[clusters]

    def mean(weight: np.ndarray) -> list[float]:
        return [float(weight @ level / weight.sum())]

    (estimate,) = bootstrap_estimates(mean, clusters)
    assert estimate.value == pytest.approx(level.mean())
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < level.mean() < estimate.high
    error = level[::50].std(ddof=1) / np.sqrt(12)
    assert 3 * error < estimate.high - estimate.low < 5 * error
    (alone,) = bootstrap_estimates(mean, np.arange(600))
    assert alone.low is not None and alone.high is not None
    assert alone.high - alone.low < (estimate.high - estimate.low) / 4


def test_too_few_tasks_have_no_interval_and_say_so():
    estimate = bootstrap_estimates(lambda weight: [1.0, np.nan], np.array([0, 1, 1, 3]))
    assert [e.value for e in estimate] == [1.0, None]
    assert estimate[0].reason == "too few tasks for a bootstrap: 3"


def test_a_draw_without_a_decisive_token_leaves_no_interval():
    positive = np.zeros(8, bool)
    positive[0] = True
    ranking = Ranking.from_scores(np.arange(8, dtype=np.float32), positive)
    auroc, _ = bootstrap_estimates(ranking.auroc_and_precision, np.arange(8))
    assert auroc.value == 0.0
    assert (auroc.low, auroc.reason) == (None, "decisive tokens are in too few tasks for a bootstrap")
