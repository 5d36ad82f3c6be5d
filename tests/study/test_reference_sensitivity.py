"""The same rollouts under other references: how much of the credit stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.contrast.leakage.masking import Literals
from sgcd.measure.statistics import rank_correlation
from sgcd.records import Group, Task
from sgcd.study.reference_sensitivity import (
    GroupWeights,
    ReferenceCase,
    compare_arm,
    credit_overlap,
    finite_mean,
)

NONE = np.zeros(0, np.float32)


def weighed(*weights: float) -> GroupWeights:
    weight = np.array(weights, np.float32)
    return GroupWeights(weight, weight - 1)


def case(own: str) -> ReferenceCase:
    return ReferenceCase(Group(Task(own, "action", {}), ()), own, Literals({}))


def test_overlap_is_the_share_of_tokens_credited_under_both() -> None:
    assert credit_overlap(np.array([1, 2, 1.5, 1]), np.array([2, 2, 1, 1])) == pytest.approx(1 / 3)
    assert credit_overlap(np.ones(3), np.ones(3)) is None


@settings(max_examples=50, deadline=None)
@given(weights=st.lists(st.floats(1, 2), min_size=3, max_size=20))
def test_ranks_are_those_of_order_alone(weights: list[float]) -> None:
    some = np.array(weights)
    if np.ptp(some) == 0:
        assert rank_correlation(some, some) is None
    else:
        assert rank_correlation(some, some) == pytest.approx(1)
        assert rank_correlation(some, -some) == pytest.approx(-1)


def test_what_is_no_number_is_left_out() -> None:
    assert rank_correlation(np.array([1.0, 2.0, np.nan, 3.0]), np.array([1.0, 5.0, 0.0, 7.0])) == pytest.approx(1)
    assert (finite_mean(np.array([1.0, np.nan])), finite_mean(NONE)) == (1.0, None)


def test_every_group_counts_the_same_and_so_does_each_variant_of_it() -> None:
    found = [
        {"own a": weighed(1, 2, 2), "x": weighed(1, 2, 1), "y": weighed(1, 1, 1.5)},
        {"own b": weighed(2, 1, 1), "z": weighed(2, 1, 1)},
        {"own c": weighed(2, 1, 1)},
    ]
    cases = [case(own) for own in ("own a", "own b", "own c")]
    told = compare_arm(found, cases, [["x", "y"], ["z"], []])
    assert (told["groups"], told["references"], told["same_text"]) == (2, 3, 0.0)
    assert told["overlap"]["value"] == pytest.approx((0.5 + 1.0) / 2)
    assert told["credited"]["value"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert told["overlap"]["groups"] == 2
    itself = compare_arm(found, cases, [[one.own_reference] for one in cases])
    assert (itself["same_text"], itself["overlap"]["value"], itself["weights"]["value"]) == (1.0, 1.0, pytest.approx(1))


def test_a_group_without_room_for_a_text_is_left_out() -> None:
    told = compare_arm([{"own": weighed(1, 2)}], [case("own")], [["too long"]])
    assert (told["groups"], told["overlap"]["value"], told["overlap"]["reason"]) == (0, None, "nothing was played")
