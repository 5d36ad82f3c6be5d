"""Turn values: by hand at a desk of three requests, and what holds of any actions and verdicts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from helpers.training_runs import group
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.pull.turn_values import TurnValues, turn_values
from sgcd.credit.signal_settings import TurnValuesSettings
from sgcd.records import Call, Group, Rollout, TokenKind

LETTERS = st.sampled_from("abc")
ACTIONS = st.lists(st.tuples(LETTERS, LETTERS, LETTERS), min_size=2, max_size=5)


def act(rollout: Rollout, actions: Sequence[str]) -> Rollout:
    """Three requests, each replied to by one call; what the environment says does not depend on the calls."""
    said = [
        message
        for number in range(len(actions))
        for message in ({"role": "assistant", "content": ""}, {"role": "user", "content": f"request {number}"})
    ]
    turns = [replace(turn, calls=(Call(name, {}),)) for turn, name in zip(rollout.turns, actions, strict=True)]
    return replace(rollout, turns=tuple(turns), messages=tuple(said))


def siblings_that(actions: Sequence[Sequence[str]], wins: int = 1) -> Group:
    played = group(*["xx.xx.xx"] * len(actions), wins=wins)
    return replace(played, rollouts=tuple(map(act, played.rollouts, actions)))


def values_of(siblings: Group) -> tuple[list[float], list[list[float]]]:
    dealt = advantages([rollout.reward for rollout in siblings.rollouts]).tolist()
    return dealt, turn_values(siblings, dealt)


def test_a_turn_has_the_mean_of_those_who_acted_alike() -> None:
    """All take the first alike; the second alone parts in the second, the third and fourth in the last."""
    (good, bad, _, _), found = values_of(siblings_that(["aaa", "aba", "aab", "aab"]))
    second, last = (good + 2 * bad) / 3, (good + bad) / 2
    assert found[0] == pytest.approx([0, second, last], abs=1e-9)
    assert found[1] == pytest.approx([0, bad, last], abs=1e-9)
    assert found[2] == pytest.approx([0, second, bad], abs=1e-9)
    assert found[3] == found[2]


def test_a_state_that_one_sibling_saw_keeps_the_advantage_of_its_rollout() -> None:
    siblings = siblings_that(["aaa", "bba"])
    alone = replace(siblings.rollouts[1], messages=tuple(
        {**message, "content": "elsewhere"} for message in siblings.rollouts[1].messages
    ))  # fmt: skip
    dealt, found = values_of(replace(siblings, rollouts=(siblings.rollouts[0], alone)))
    assert [row[1:] for row in found] == [[dealt[0]] * 2, [dealt[1]] * 2]


def test_tokens_of_a_turn_have_its_value_and_thinking_its_share() -> None:
    siblings = siblings_that(["aaa", "aba", "aab"])
    dealt, values = values_of(siblings)
    for rollout, advantage, expected in zip(siblings.rollouts, dealt, values, strict=True):
        kinds = np.resize([TokenKind.THINKING, TokenKind.CALL, TokenKind.GLUE], len(rollout.response))
        inputs = CreditInputs(
            replace(rollout, token_kinds=kinds), advantage, group=siblings, group_advantages=dealt
        )  # fmt: skip
        found = TurnValues(TurnValuesSettings(name="turn_values", thinking=0.2)).assign_credit(inputs).token_advantage
        for turn, value in zip(rollout.turns, expected, strict=True):
            assert found[turn.start : turn.stop].tolist() == pytest.approx([0.2 * value, value], abs=1e-6)


@given(actions=ACTIONS)
@profile(max_examples=40, deadline=None)
def test_values_of_a_state_sum_to_zero_and_dealt_verdicts_give_nothing(actions: list[tuple[str, ...]]) -> None:
    siblings = siblings_that(actions)
    dealt, found = values_of(siblings)
    assert np.abs(np.sum(found, axis=0)).max() < 1e-9
    over_all_deals = np.sum([turn_values(siblings, deal) for deal in {*permutations(dealt)}], axis=0)
    assert np.abs(over_all_deals).max() < 1e-9
