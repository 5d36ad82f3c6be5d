"""Intervals, paired comparisons and pass@k: known answers, properties, coverage; honest where nothing can be said."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.measure.statistics import (
    Estimate,
    clustered_interval,
    draw_resample_weights,
    mcnemar_test,
    paired_interval,
    paired_runs_interval,
    pass_at_k,
    pass_hat_k,
    permutation_test,
    wilson_interval,
)

tasks = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda cn: (min(cn), max(cn))), max_size=12)
rates = st.lists(st.tuples(*[st.integers(0, 3).map(lambda c: c / 3)] * 2), max_size=15)


def honest(e: Estimate) -> bool:
    """Either an interval around the value and the name of its kind, or the reason why there is none; never NaN."""
    if e.low is None or e.high is None:
        return e.low is None and e.high is None and bool(e.reason) and not e.kind
    assert e.value is not None
    return e.low <= e.value + 1e-12 and e.value <= e.high + 1e-12 and bool(e.kind) and not e.reason


def ends(e: Estimate) -> tuple[float, float]:
    assert e.low is not None
    assert e.high is not None
    return e.low, e.high


def width(e: Estimate) -> float:
    low, high = ends(e)
    return high - low


def covers(e: Estimate, truth: float) -> bool:
    low, high = ends(e)
    return low <= truth <= high


def test_wilson_against_the_formula() -> None:
    n, p, z = 20, 7 / 20, 1.959963984540054
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    e = wilson_interval(7, 20)
    assert (e.low, e.high) == pytest.approx(
        ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-12
    )


@given(st.integers(0, 50).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_honest_and_within_zero_and_one(cn: tuple[int, int]) -> None:
    e = wilson_interval(*cn)
    assert honest(e)
    assert e.low is None or (ends(e)[0] >= 0 and ends(e)[1] <= 1 and width(e) > 0)


def test_clustered_against_a_worked_example() -> None:
    # Sixteen task means: four times 1, .5, 0, .5. Mean .5, variance 2/15, t(15) = 2.131450: 30 effective trials.
    e = clustered_interval([2, 1, 0, 1] * 4, [2] * 16)
    half = 2.1314495455597742 * np.sqrt(0.25 * 30 + 2.1314495455597742**2 / 4) / (30 + 2.1314495455597742**2)
    assert e.value == 0.5
    assert (e.low, e.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert e.kind == "clustered, wilson with 30 effective trials"


@given(tasks)
@settings(max_examples=60, deadline=None)
def test_clustered_is_honest(cn: list[tuple[int, int]]) -> None:
    e = clustered_interval([c for c, _ in cn], [n for _, n in cn])
    assert honest(e)
    assert e.low is None or (ends(e)[0] >= 0 and ends(e)[1] <= 1)


def test_clustered_says_why_when_it_cannot() -> None:
    assert clustered_interval([], []).reason == "nothing was played"
    assert clustered_interval([0], [0]).reason == "nothing was played"
    assert clustered_interval([1], [3]).reason == "one value has no spread"
    assert clustered_interval([1, 1, 1], [3, 3, 3]).reason == "all 3 values are equal"
    none = clustered_interval([0] * 10, [3] * 10)
    assert none.kind == "wilson over tasks"
    assert none.high == wilson_interval(0, 10).high


def test_tasks_count_the_same_however_often_they_were_played() -> None:
    assert clustered_interval([9, 0], [9, 1]).value == 0.5


def simulate(rng: np.random.Generator, tasks: int, trials: int, mean: float) -> np.ndarray:
    """Successes of tasks whose own rates differ: the trials of one task go together."""
    return rng.binomial(trials, rng.beta(2 * mean, 2 * (1 - mean), tasks))


def test_clustered_interval_covers_the_truth_and_wilson_over_trials_does_not() -> None:
    rng = np.random.default_rng(0)
    covered = naive = 0
    for _ in range(300):
        c = simulate(rng, 60, 4, 0.4)
        e, w = clustered_interval(c.tolist(), [4] * 60), wilson_interval(int(c.sum()), 240)
        covered += covers(e, 0.4)
        naive += covers(w, 0.4)
    assert 0.91 <= covered / 300 <= 0.98
    assert naive / 300 < 0.9


def test_paired_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        task = rng.beta(1, 1.5, 60)
        a, b = rng.binomial(3, task**0.5) / 3, rng.binomial(3, task) / 3
        # E[task^.5] - E[task] for Beta(1, 1.5): 1.5 B(1.5, 1.5) - .4
        truth = 1.5 * 0.39269908169872414 - 0.4
        e = paired_interval(a, b)
        covered += covers(e, truth)
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("matched", [True, False])
def test_seeds_then_tasks_covers_the_true_difference_of_noisy_runs(matched: bool) -> None:
    rng = np.random.default_rng(2)
    covered = only_tasks = 0
    for _ in range(150):
        task = rng.normal(0.5, 0.2, 40)
        a = task + 0.1 + rng.normal(0, 0.05, (8, 1)) + rng.normal(0, 0.1, (8, 40))
        b = task + rng.normal(0, 0.05, (8, 1)) + rng.normal(0, 0.1, (8, 40))
        e, t = (
            paired_runs_interval(a, b, matched),
            paired_interval(a.mean(0), b.mean(0)),
        )
        covered += covers(e, 0.1)
        only_tasks += covers(t, 0.1)
    assert 0.89 <= covered / 150 <= 0.995
    assert only_tasks < covered, "tasks alone miss the spread between seeds"


def test_matching_by_seed_takes_out_what_the_seeds_share() -> None:
    shared = np.array([[-0.3], [0.0], [0.3], [0.1]])
    a, b = np.full((4, 20), 0.6) + shared, np.linspace(0.4, 0.6, 20) + shared
    matched, loose = (paired_runs_interval(a, b, m) for m in (True, False))
    assert matched.value == loose.value == pytest.approx(0.1)
    assert width(matched) < 0.1 < width(loose)


def test_few_seeds_spread_as_wide_as_their_sample_variance() -> None:
    seeds = np.array([0.2, 0.5, 0.6])
    drawn = draw_resample_weights(np.random.default_rng(0), 3, 20000) @ seeds
    assert drawn.mean() == pytest.approx(seeds.mean(), abs=0.005)
    assert drawn.var() == pytest.approx(seeds.var(ddof=1) / 3, rel=0.03)


@given(rates)
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("error")
def test_paired_is_honest_deterministic_and_turns_its_sign(ab: list[tuple[float, float]]) -> None:
    a, b = np.array([x for x, _ in ab]), np.array([y for _, y in ab])
    e = paired_interval(a, b)
    assert honest(e)
    assert e == paired_interval(a, b)
    back = paired_interval(b, a)
    assert back.value == (None if e.value is None else pytest.approx(-e.value))


@given(st.integers(0, 3), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("error")
def test_runs_are_compared_honestly(runs: int, tasks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.binomial(2, 0.5, (runs + 1, tasks)) / 2, rng.binomial(2, 0.5, (runs + 1, tasks)) / 2
    for matched in (True, False):
        e = paired_runs_interval(a, b, matched)
        assert (e.low is None) == bool(e.reason)
        assert e == paired_runs_interval(a, b, matched)
        assert e.value == pytest.approx(a.mean() - b.mean())


def test_what_a_comparison_cannot_say() -> None:
    assert paired_interval([], []).reason == "no task was played on both sides"
    assert paired_interval([1], [0]) == Estimate(1.0, reason="too few tasks for an interval: 1")
    assert paired_interval([1] * 9, [0] * 9) == Estimate(1.0, reason="the difference is the same on all 9 tasks")
    assert paired_runs_interval([[1] * 9], [[0] * 9], True).reason == "one run on a side: no spread between seeds"
    assert paired_runs_interval([[1] * 9] * 3, [[0] * 9] * 3, True).reason == "no seed and no task differs from another"
    assert permutation_test([1, 0], [1, 0]) is None
    assert mcnemar_test([1, 0], [1, 0]) is None
    with pytest.raises(ValueError, match="one number for each task"):
        paired_interval([1, 2], [1])
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        wilson_interval(3, 2)


def test_mcnemar_against_the_binomial() -> None:
    # Five tasks only a solves, one only b: 2 * P(X >= 5), X ~ B(6, 1/2) = 2 * 7/64.
    a = [1, 1, 1, 1, 1, 0, 1, 0]
    b = [0, 0, 0, 0, 0, 1, 1, 0]
    assert mcnemar_test(a, b) == pytest.approx(14 / 64)


def test_sign_flips_against_all_signs() -> None:
    # Six tasks, all better by one: two of the 64 sign patterns are as far out.
    assert permutation_test([1] * 6, [0] * 6) == pytest.approx(2 / 64)


def test_pass_at_k_and_pass_hat_k_against_all_choices() -> None:
    """Property 27 of the method's notes, by brute force: draw every k of the n trials."""
    played = [[1, 0, 0, 1, 0], [0, 0, 0], [1, 1, 1, 1]]
    c, n = [sum(t) for t in played], [len(t) for t in played]
    for k in (1, 2, 3):
        some = [np.mean([max(x) for x in combinations(t, k)]) for t in played]
        every = [np.mean([min(x) for x in combinations(t, k)]) for t in played]
        assert pass_at_k(c, n, k) == pytest.approx(np.mean(some))
        assert pass_hat_k(c, n, k) == pytest.approx(np.mean(every))


@given(st.lists(st.integers(4, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=8))
def test_pass_at_k_rises_and_pass_hat_k_falls_from_the_same_start(cn: list[tuple[int, int]]) -> None:
    c, n = [c for c, _ in cn], [n for _, n in cn]
    at, hat = ([each(c, n, k) or 0.0 for k in (1, 2, 3, 4)] for each in (pass_at_k, pass_hat_k))
    assert at[0] == pytest.approx(hat[0])
    assert all(x <= y + 1e-12 for x, y in pairwise(at))
    assert all(x >= y - 1e-12 for x, y in pairwise(hat))


@pytest.mark.parametrize("estimator", [pass_at_k, pass_hat_k])
def test_more_trials_than_were_played_are_refused(estimator) -> None:
    with pytest.raises(ValueError, match="expected 1 <= k <= 2"):
        estimator([1, 1], [3, 2], 3)
    with pytest.raises(ValueError, match="expected 1 <= k"):
        estimator([1], [3], 0)
    assert estimator([], [], 1) is None


def test_one_task_has_no_permutation_test():
    assert permutation_test([1.0], [0.5]) is None
