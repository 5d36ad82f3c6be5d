"""Differences over matched seeds, against scipy and against what the definitions say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.measure.matched_seeds import correct_by_holm, least_detectable_difference, paired_power, seed_difference
from sgcd.measure.statistics import scipy_stats

P_VALUES = st.lists(st.none() | st.floats(0, 1), max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9).filter(lambda x: np.ptp(x) > 1e-3))
def test_the_test_and_its_interval_are_scipys(differences: list[float]) -> None:
    ours, theirs = seed_difference(differences), scipy_stats().ttest_1samp(differences, 0)
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert (ours.estimate.low, ours.estimate.high) == pytest.approx((max(-1, interval.low), min(1, interval.high)))
    assert ours.seeds == len(differences)


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ([], "no seed was finished on both sides"),
        ([0.1], "one seed: no interval and no p-value"),
        ([0.1, 0.1], "all 2 values are equal"),
    ],
)
def test_without_spread_there_is_no_p_value(differences: list[float], reason: str) -> None:
    answer = seed_difference(differences).to_json()
    assert (answer["p"], answer["low"], answer["detectable"], answer["reason"]) == (None, None, None, reason)


@settings(deadline=None)
@given(P_VALUES)
def test_holm_is_the_largest_of_the_closed_tests(p_values: list[float | None]) -> None:
    """p is corrected to the largest Bonferroni bound of the sets of hypotheses whose smallest p is at most it."""
    found = [p for p in p_values if p is not None]
    for p, corrected in zip(p_values, correct_by_holm(p_values), strict=True):
        if p is None:
            assert corrected is None
        else:
            bounds = [min(1.0, q * sum(other >= q for other in found)) for q in found if q <= p]
            assert corrected == pytest.approx(max(bounds))


@settings(deadline=None)
@given(P_VALUES)
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float | None]) -> None:
    pairs = [
        (p, q) for p, q in zip(p_values, correct_by_holm(p_values), strict=True) if p is not None and q is not None
    ]
    assert all(p <= q <= 1 for p, q in pairs)
    assert all(q <= s for p, q in pairs for r, s in pairs if p <= r)


def test_power_is_the_share_of_simulated_studies_that_find_the_difference() -> None:
    drawn = np.random.default_rng(0).normal(0.04, 0.03, (20_000, 5))
    share = float((scipy_stats().ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean())
    assert paired_power(0.04, 0.03, 5) == pytest.approx(share, abs=0.015)
    assert paired_power(1e-9, 0.03, 5) == pytest.approx(0.05, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.001, 10), st.integers(2, 30))
def test_the_least_detectable_difference_is_found_with_the_power(sd: float, seeds: int) -> None:
    assert paired_power(least_detectable_difference(sd, seeds), sd, seeds) == pytest.approx(0.8, abs=1e-4)
