"""Parting: where siblings part, by hand, and how places share the weight."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from helpers.training_runs import group
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.parting import PartingMethod, find_shares, find_token_partings
from sgcd.credit.settings import PartingMethodSettings
from sgcd.records import Call, Rollout, Turn

SETTINGS = PartingMethodSettings(name="parting")


def rollout(index: int, *turns: str, calls: tuple[str, ...] = ()) -> Rollout:
    """Each letter of a turn is a token, with one token of an observation after each turn."""
    letters = "".join(f"{turn}." for turn in turns)
    spans, start = [], 0
    for number, turn in enumerate(turns):
        turn_calls = tuple(Call(name, {}) for name in calls[number : number + 1] if name)
        spans.append(Turn(start, start + len(turn), turn_calls))
        start += len(turn) + 1
    mask = "".join("." if letter == "." else "x" for letter in letters)
    blank = group(mask).rollouts[0]
    response = np.array([ord(letter) for letter in letters], np.int32)
    return replace(blank, sibling=index, response=response, turns=tuple(spans))


def spans(own: Rollout, other: Rollout) -> list[tuple[range, range]]:
    return [(place.own, place.other) for place in find_token_partings(own, other)]


def test_places_are_found_within_aligned_turns() -> None:
    assert spans(rollout(0, "find", "payX!"), rollout(1, "find", "payYZ!")) == [(range(8, 9), range(8, 10))]


def test_what_is_missing_shows_at_the_next_token() -> None:
    assert spans(rollout(0, "ab!"), rollout(1, "aXb!")) == [(range(1, 2), range(1, 2))]
    assert spans(rollout(0, "ab"), rollout(1, "abc")) == [(range(1, 2), range(2, 3))]


def test_a_turn_with_equal_calls_is_aligned_before_one_in_the_same_place() -> None:
    first = rollout(0, "look", "paid", calls=("look", "pay"))
    second = rollout(1, "paid", calls=("pay",))
    assert spans(first, second) == [(range(4), range(1))]


def test_equal_rollouts_part_nowhere_and_an_empty_one_has_no_place() -> None:
    assert spans(rollout(0, "abc"), rollout(1, "abc")) == []
    assert spans(rollout(0), rollout(1, "abc")) == []


def test_the_deciding_token_has_a_full_share_and_what_differs_anyway_none() -> None:
    """One free word (u to x), then the decision: y in successes, n in failures."""
    rollouts = [rollout(0, "auby!"), rollout(1, "avby!"), rollout(2, "awbn!"), rollout(3, "axbn!")]
    shares = find_shares(rollouts, [1, 1, -1, -1], decay=1.0)
    assert [share.tolist() for share in shares] == [[0, 0, 0, 1, 0, 0]] * 4


def test_later_places_have_less() -> None:
    shares = find_shares([rollout(0, "y1q"), rollout(1, "n1r")], [1, -1], decay=0.5)
    assert shares[0].tolist() == [1, 0, 0.5, 0]


def test_failures_that_each_err_in_their_own_way_are_still_marked() -> None:
    rollouts = [rollout(0, "ay!"), rollout(1, "ay!"), rollout(2, "am!"), rollout(3, "an!")]
    shares = find_shares(rollouts, [1, 1, -1, -1], decay=0.5)
    assert [share[1] for share in shares] == [1, 1, 1, 1]


def test_outcomes_are_the_dealt_ones_and_an_advantage_of_zero_has_no_share() -> None:
    rollouts = tuple(rollout(index, turn) for index, turn in enumerate(["ay!", "ay!", "an!"]))
    siblings = replace(group("x"), rollouts=rollouts)

    def weights(index: int, dealt: list[float]) -> list[float]:
        inputs = CreditInputs(rollouts[index], dealt[index], group=siblings, group_advantages=dealt)
        return PartingMethod(SETTINGS).assign_credit(inputs).credit.weight.tolist()

    assert weights(0, [0.5, 0.5, -1.0]) == [1, 2, 1, 1]
    assert weights(0, [0.5, -1.0, 0.5]) == [1, 1, 1, 1]  # the verdict of the one that differs was dealt to its equal
    assert weights(2, [0.0, 0.0, 0.0]) == [1, 1, 1, 1]


@profile(max_examples=40, deadline=None)
@given(st.lists(st.text("ab", min_size=0, max_size=8), min_size=2, max_size=5), st.integers(0, 31))
def test_shares_are_between_nothing_and_one(turns: list[str], wins: int) -> None:
    signs = [1.0 if wins >> index & 1 else -1.0 for index in range(len(turns))]
    rollouts = [rollout(index, turn) if turn else rollout(index) for index, turn in enumerate(turns)]
    for share in find_shares(rollouts, signs, decay=0.5):
        assert ((share >= 0) & (share <= 1)).all()
    assert all(not share.any() for share in find_shares(rollouts, [1.0] * len(turns), decay=0.5))


def test_long_turns_are_aligned_fast() -> None:
    rng = np.random.default_rng(0)
    text = "".join(rng.choice([*"abcdefgh"], 3000))
    other = "".join(rng.choice([*"abcdefgh"], 3000))
    assert pytest.approx(1) == find_shares([rollout(0, text), rollout(1, other)], [1, -1], 1.0)[0].max()
