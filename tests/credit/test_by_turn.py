"""Verdicts by turn: whose advantage each token has, by hand, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from helpers.training_runs import group
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.pull.by_turn import ByTurn, part_indices, part_rewards
from sgcd.credit.signal_settings import ByTurnSettings
from sgcd.errors import MethodFault
from sgcd.records import Group, Rollout, TokenKind, Verdict

MASKS = ("xx.xxx", "xxx.xx", "x.x.xx")


def with_parts(siblings: Group, parts_by_rollout: list[Any]) -> Group:
    rollouts = [
        replace(rollout, verdict=Verdict(rollout.reward, rollout.success, {"parts": parts}))
        for rollout, parts in zip(siblings.rollouts, parts_by_rollout, strict=True)
    ]
    return replace(siblings, rollouts=tuple(rollouts))


def parts(*rewards_and_turns: tuple[float, int]) -> list[dict[str, float]]:
    return [{"reward": reward, "turns": turns} for reward, turns in rewards_and_turns]


def token_advantages(siblings: Group, order: tuple[int, ...] = (), **settings: float) -> list[list[float]]:
    dealt = advantages([rollout.reward for rollout in siblings.rollouts])
    values = (dealt[list(order)] if order else dealt).tolist()
    method = ByTurn(ByTurnSettings(name="by_turn", **settings))
    return [
        method.assign_credit(
            CreditInputs(rollout, value, group=siblings, group_advantages=values, verdict_order=order)
        ).token_advantage.tolist()
        for rollout, value in zip(siblings.rollouts, values, strict=True)
    ]


def test_each_part_has_the_advantage_of_its_own_verdict() -> None:
    """The first rollout succeeds in both parts, the second in the first alone, the third in none of its three."""
    siblings = with_parts(group(*MASKS), [parts((1, 1), (1, 1)), parts((1, 1), (0, 1)), parts((0, 1), (0, 1), (0, 1))])
    first = advantages([1, 1, 0])
    second = advantages([1, 0, 0])
    found = token_advantages(siblings)
    assert found[0][:2] + found[0][3:] == pytest.approx([first[0]] * 2 + [second[0]] * 3, abs=1e-6)
    assert found[1][:3] == pytest.approx([first[1]] * 3, abs=1e-6)
    assert found[1][4:] == pytest.approx([second[1]] * 2, abs=1e-6)
    assert found[2][0] == pytest.approx(first[2], abs=1e-6) and found[2][2] == pytest.approx(second[2], abs=1e-6)
    assert found[2][4:] == [0, 0]  # a part in which all siblings have reward 0
    assert found[1][0] > 0 > found[1][4]  # a failed rollout whose first part was right


def test_a_part_that_was_not_ended_counts_as_failed() -> None:
    siblings = with_parts(group(*MASKS), [parts((1, 1), (1, 1)), parts((1, 1)), parts((1, 1), (0, 2))])
    assert part_rewards(siblings.rollouts).tolist() == [[1, 1], [1, 0], [1, 0]]
    assert token_advantages(siblings)[1][4:] == pytest.approx([advantages([1, 0, 0])[1]] * 2, abs=1e-6)


def test_a_turn_that_the_environment_never_saw_belongs_to_the_part_it_was_an_attempt_at() -> None:
    rollout = with_parts(group("x.x.xx"), [parts((1, 1), (0, 1))]).rollouts[0]
    unread = replace(rollout, turns=(replace(rollout.turns[0], malformed="no tool"), *rollout.turns[1:]))
    assert part_indices(rollout)[rollout.response_mask].tolist() == [0, 1, 2, 2]
    assert part_indices(unread)[rollout.response_mask].tolist() == [0, 0, 1, 1]


def test_tokens_after_the_last_part_keep_the_rollout_s_advantage() -> None:
    siblings = with_parts(group(*MASKS), [parts((1, 1)), parts((0, 1)), parts((0, 1))])
    whole = advantages([1, 0, 0])
    assert token_advantages(siblings)[0][3:] == pytest.approx([whole[0]] * 3, abs=1e-6)


def test_thinking_has_its_factor() -> None:
    siblings = with_parts(group(*MASKS), [parts((1, 1), (1, 1)), parts((0, 1), (0, 1)), parts((0, 1), (0, 1))])
    kinds = np.array([TokenKind.THINKING, TokenKind.CALL, 0, 1, 2, 2], np.uint8)
    siblings = replace(siblings, rollouts=tuple(replace(each, token_kinds=kinds) for each in siblings.rollouts))
    full, masked = token_advantages(siblings)[0], token_advantages(siblings, thinking=0.25)[0]
    assert masked[0] == pytest.approx(full[0] / 4, rel=1e-5) and masked[1] == full[1] != 0


@profile(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=4))
def test_a_dealt_verdict_brings_its_parts_along(order: list[int], rights: list[tuple[bool, bool]]) -> None:
    """With equal tokens, dealing the verdicts deals the whole rows; and over siblings each part sums to zero."""
    siblings = with_parts(group(*["xx.xx"] * 4), [parts((a, 1), (b, 1)) for a, b in rights])
    honest, dealt = token_advantages(siblings), token_advantages(siblings, tuple(order))
    mask = siblings.rollouts[0].response_mask
    for row, source in zip(dealt, order, strict=True):
        assert np.array(row)[mask] == pytest.approx(np.array(honest[source])[mask], abs=1e-6)
    assert np.abs(np.sum(dealt, axis=0)[mask]).max() < 1e-5


@pytest.mark.parametrize(
    "facts", [{}, {"parts": 3}, {"parts": [1.0]}, {"parts": [{"reward": 1.0}]}, {"parts": parts((float("nan"), 1))}]
)
def test_a_verdict_without_parts_is_refused_in_one_line(facts: dict[str, Any]) -> None:
    siblings = group(*MASKS)
    rollouts: tuple[Rollout, ...] = tuple(replace(each, verdict=Verdict(0, False, facts)) for each in siblings.rollouts)
    with pytest.raises(
        MethodFault, match=r"method\.by_turn: rollout t/0: .*expected Verdict\.facts\[.parts.\]"
    ) as info:
        token_advantages(replace(siblings, rollouts=rollouts))
    assert "\n" not in str(info.value)
