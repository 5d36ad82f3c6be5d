"""Intervals, paired comparisons and pass@k: known answers, properties, coverage; honest where nothing can be said."""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.measure.statistics import (
    Estimate,
    clustered_interval,
    jackknife_estimate,
    mcnemar_test,
    paired_interval,
    paired_runs_interval,
    pass_at_k,
    pass_hat_k,
    permutation_test,
    t_interval,
    two_way_variance,
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
    # Sixteen task means: four times 1, .5, 0, .5. n = .25 / (2/15 / 16) = 30, t(15) = 2.13145.
    e = clustered_interval([2, 1, 0, 1] * 4, [2] * 16)
    q = 2.1314495455597742
    half = q * np.sqrt(0.25 / 30 + q**2 / (4 * 30**2)) / (1 + q**2 / 30)
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


def test_trials_of_one_task_are_no_evidence_of_their_own() -> None:
    clustered = clustered_interval([4, 0] * 10, [4] * 20)
    assert width(clustered) > 1.8 * width(wilson_interval(40, 80))


def test_paired_is_the_t_interval_of_the_differences() -> None:
    a, b = np.array([1, 0.5, 0.25, 1, 0]) / 2, np.array([0, 0.5, 0.5, 0, 0]) / 2
    assert ends(paired_interval(a, b)) == pytest.approx(ends(t_interval(a - b)))
    # Differences .5, 0, -.125, .5, 0: mean .175, variance .090625, t(4) = 2.776445.
    assert ends(paired_interval(a, b))[0] == pytest.approx(0.175 - 2.7764451051977987 * np.sqrt(0.090625 / 5))


def test_runs_against_a_worked_example() -> None:
    # No residuals, so V = var(seed means) / 3 + var(task means) / 5 = .01 / 3 + .025 / 5.
    a, b = np.array([[0.1], [0.2], [0.3]]) + np.array([0, 0.1, 0.2, 0.3, 0.4]), np.zeros((3, 5))
    variance, freedom = two_way_variance([a])
    assert variance == pytest.approx(0.01 / 3 + 0.005)
    assert freedom == pytest.approx(variance**2 / ((0.01 / 3) ** 2 / 2 + 0.005**2 / 4))
    assert paired_runs_interval(a, b, True).value == pytest.approx(0.4)
    two = paired_runs_interval(a[:2], b[:2], True)
    assert ends(two) == pytest.approx(ends(t_interval(a[:2].mean(axis=1))))
    assert two.kind == "t over matched seeds"


@given(st.integers(2, 6), st.integers(5, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_runs_vary_no_less_than_their_seeds(seeds: int, tasks: int, seed: int) -> None:
    side = np.random.default_rng(seed).binomial(3, 0.4, (seeds, tasks)) / 3
    variance, freedom = two_way_variance([side])
    assert variance >= side.mean(axis=1).var(ddof=1) / seeds - 1e-15
    assert freedom <= seeds - 1 + tasks - 1 + 1e-9


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = np.random.default_rng(1).normal(size=9)
    found = jackknife_estimate(np.array([values.mean(), *((values.sum() - v) / 8 for v in values)]))
    assert found.value == pytest.approx(values.mean())
    assert ends(found) == pytest.approx(ends(t_interval(values)))
    assert found.kind == "jackknife over 9 groups"


@given(st.lists(st.floats(0.01, 0.99), min_size=6, max_size=12))
def test_the_jackknife_of_a_share_stays_between_zero_and_one(values: list[float]) -> None:
    e = jackknife_estimate(np.array(values), is_share=True)
    assert honest(e)
    assert e.low is None or (ends(e)[0] >= 0 and ends(e)[1] <= 1)


def test_what_the_jackknife_cannot_say() -> None:
    assert jackknife_estimate(np.zeros(4)).reason == "too few groups for an interval: 3"
    assert jackknife_estimate(np.array([np.nan] * 9)) == Estimate(None, reason="it has no value")
    assert jackknife_estimate(np.full(9, 0.5)).reason == "it is the same without any of its groups"
    ends_at_one = np.array([0.9] * 8 + [1.0])
    assert jackknife_estimate(ends_at_one, is_share=True).reason == "it is 0 or 1 without one of its groups"


def test_matching_by_seed_takes_out_what_the_seeds_share() -> None:
    shared = np.array([[-0.3], [0.0], [0.3], [0.1]])
    a, b = np.full((4, 20), 0.6) + shared, np.linspace(0.4, 0.6, 20) + shared
    matched, loose = (paired_runs_interval(a, b, m) for m in (True, False))
    assert matched.value == loose.value == pytest.approx(0.1)
    assert width(matched) < 0.1 < width(loose)


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
    assert paired_runs_interval([[1] * 9] * 3, [[0] * 9] * 3, True).reason == "no seed differs from another"
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


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=7), min_size=1, max_size=4), st.integers(1, 3))
def test_pass_at_k_and_pass_hat_k_are_the_means_over_all_choices_of_trials(played: list[list[bool]], k: int) -> None:
    c, n = [sum(trials) for trials in played], [len(trials) for trials in played]
    some = [np.mean([any(chosen) for chosen in combinations(trials, k)]) for trials in played]
    every = [np.mean([all(chosen) for chosen in combinations(trials, k)]) for trials in played]
    assert pass_at_k(c, n, k) == pytest.approx(np.mean(some))
    assert pass_hat_k(c, n, k) == pytest.approx(np.mean(every))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(1, n))))
def test_large_k_neither_overflows_nor_loses_digits(cnk: tuple[int, int, int]) -> None:
    """Drawing one trial after the other, in exact fractions."""
    c, n, k = cnk
    none, every = Fraction(1), Fraction(1)
    for drawn in range(k):
        none *= Fraction(max(n - c - drawn, 0), n - drawn)
        every *= Fraction(max(c - drawn, 0), n - drawn)
    assert pass_at_k([c], [n], k) == pytest.approx(float(1 - none), rel=1e-12, abs=1e-12)
    assert pass_hat_k([c], [n], k) == pytest.approx(float(every), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("estimator", [pass_at_k, pass_hat_k])
def test_more_trials_than_were_played_are_refused(estimator) -> None:
    with pytest.raises(ValueError, match="expected 1 <= k <= 2"):
        estimator([1, 1], [3, 2], 3)
    with pytest.raises(ValueError, match="expected 1 <= k"):
        estimator([1], [3], 0)
    assert estimator([], [], 1) is None


def test_one_task_has_no_permutation_test():
    assert permutation_test([1.0], [0.5]) is None
