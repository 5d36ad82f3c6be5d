"""Siblings on the page: six tokens drawn by hand, and every colour and number of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers import drawn_runs
from sgcd.credit_records import Credit, CreditRecord
from sgcd.records import Turn
from sgcd.show import group_columns as siblings
from sgcd.show import token_classes
from sgcd.show.group_columns import ShownToken, TurnCell, build_task_section
from sgcd.show.token_classes import build_token_classes


def spell(ids: Any) -> list[str]:
    return [drawn_runs.WORDS[token - 10] for token in ids.tolist()]


def shown() -> Any:
    records = {"t-1/0": drawn_runs.scored(-0.5), "t-1/1": drawn_runs.scored(0.5)}
    return build_task_section(
        "1.0", drawn_runs.siblings(), records, references=(), decode_tokens=spell, max_advantage=1.0
    )


def test_every_token_has_its_colours() -> None:
    assert build_token_classes(drawn_runs.rollout(1, True), drawn_runs.scored(0.5), 1.0) == [
        "k1 p7",  # A W = .5 of 1, and colours go by the root
        "k2 w9 p9 d8",
        "k2 p7 d5 m",
        "k0 p7 d9",  # the policy did not write it, so it is not shown as a token
        "k3 w5 p8 d3",
        "k3 p7",  # what is not finite has no colour
    ]


def test_weights_below_one_and_failures_have_colours_of_their_own() -> None:
    credit = Credit(-1.0, np.array([0.2, 0.6, 1, 1, 1.1, 3], np.float32), cap=3.0, floor=0.2)
    assert build_token_classes(drawn_runs.rollout(0, False), CreditRecord(credit), 3.0) == [
        "k1 v9 n3",
        "k2 v5 n5",
        "k2 n6",
        "k0 n6",
        "k3 w1 n6",
        "k3 w9 n9",
    ]
    assert build_token_classes(drawn_runs.rollout(0, False), None, 1.0) == ["k1", "k2", "k2", "k0", "k3", "k3"]


def test_success_stands_before_failure_and_what_broke_stands_last() -> None:
    task, _ = shown()
    assert [(c.siblings, c.outcome, c.advantage) for c in task.columns] == [
        ((1,), "success", 0.5),
        ((0,), "failure", -0.5),
        ((2,), "broken", None),
    ]
    assert (task.columns[2].end_reason, task.columns[2].broken) == ("", "reply: timed out after 60 s")
    assert task.columns[0].facts == (("state", "✓"), ("note", "-"))
    assert (task.columns[0].mean_weight, task.columns[0].credited_share) == pytest.approx((1.3, 0.4))
    assert task.prompt_messages == (("system", "be kind"), ("user", "please cancel b12"))


def test_a_turn_is_what_was_written_and_what_was_seen_then() -> None:
    task, _ = shown()
    assert task.columns[0].cells == (
        TurnCell(
            (
                ShownToken("", "so", "", "k1 p7 s"),
                ShownToken(" ", "call", "", "k2 w9 p9 d8 s"),
                ShownToken(" ", "b12", "", "k2 p7 d5 m s"),
            ),
            (),
            "done",
        ),
        TurnCell((ShownToken("", "yes", "", "k3 w5 p8 d3 s"), ShownToken("", "↵", "\n", "k3 p7")), (), ""),
    )
    assert task.num_turns == 2


def test_numbers_stand_for_the_tokens_that_are_shown() -> None:
    _, numbers = shown()
    assert numbers["1.0.0"] == {
        "place": [0, 1, 2, 4, 5],
        "id": [10, 11, 12, 14, 15],
        "advantage": 0.5,
        "weight": [1, 2, 1, 1.5, 1],
        "divergence": [0, 1, 0.15, 0.02, None],
        "entropy": 0,
        "gap": [0, -1, 0.5, 0, 0],
        "saliency": [0, 1, 0, 0.5, 0],
        "masked": [2],
    }
    assert numbers["1.0.2"] == {"place": [0, 1, 2, 4, 5], "id": [10, 11, 12, 14, 15]}


def test_of_a_long_rollout_the_middle_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_classes, "MAX_HEAD_TOKENS", 1)
    monkeypatch.setattr(token_classes, "MAX_TAIL_TOKENS", 1)
    monkeypatch.setattr(siblings, "MAX_OBSERVATION_CHARS", 3)
    task, numbers = shown()
    first, second = task.columns[0].cells
    assert first.tokens == (ShownToken("", "so", "", "k1 p7 s"), "2 tokens are not shown")
    assert second.tokens == ("1 token is not shown", ShownToken("", "↵", "\n", "k3 p7"))
    assert first.observation == "do ... 1 characters cut ... e"
    assert numbers["1.0.0"]["id"] == [10, 15]
    assert token_classes.count_shown_tokens(drawn_runs.siblings()) == 3 * 2


def test_what_was_wrong_with_a_call_stands_below_it() -> None:
    turn = drawn_runs.rollout(0, False).turns[0]
    bad = (Turn(0, 3, (*turn.calls, type(turn.calls[0])("find", {}, is_error=True)), "it is never closed"), Turn(4, 6))
    group = replace(drawn_runs.siblings(), rollouts=(drawn_runs.rollout(0, False, turns=bad),))
    task, _ = build_task_section("0", group, {}, references=(), decode_tokens=spell, max_advantage=1.0)
    assert task.columns[0].cells[0].problems == ("find answered with an error", "could not be read: it is never closed")


def test_siblings_with_the_same_tokens_and_credit_are_one_column() -> None:
    same, other = drawn_runs.rollout(1, True), drawn_runs.rollout(0, False)
    twin = replace(same, sibling=3)
    weighted = replace(same, sibling=4)
    group = replace(drawn_runs.siblings(), rollouts=(other, same, twin, weighted), broken=())
    records = {one.name: drawn_runs.scored(0.5) for one in (same, twin)} | {other.name: drawn_runs.scored(-0.5)}
    task, numbers = build_task_section("0", group, records, references=(), decode_tokens=spell, max_advantage=1.0)
    assert [column.siblings for column in task.columns] == [(1, 3), (4,), (0,)]  # sibling 4 has no credit on record
    assert (task.num_siblings, task.num_raised) == (4, 3 * 2)
    assert [*numbers] == ["0.0", "0.1", "0.2"]
