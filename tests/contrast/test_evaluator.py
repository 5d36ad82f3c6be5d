"""What a verifier says is taken out whole, by its names."""

from dataclasses import replace

import pytest

from helpers.group import LAB, pair, rollout
from sgcd.contrast.evaluator import EVALUATOR, named, names, without
from sgcd.contrast.literals import literals_of
from sgcd.contrast.trace import render, trace_of
from sgcd.records import Verdict


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"gold_actions": [{"name": "cancel", "to": [1]}], "cabin": "basic"}', '{"hidden", "cabin": "basic"}'),
        ("expected_answer = paris, and so on", "hidden, and so on"),
        ("goldAnswer: it is lima\nnext", "hidden\nnext"),
        ("reward_info={'a': {}} ok", "hidden ok"),
        ('ground_truth: "a \\" b" c', "hidden c"),
        ("test_cases: [never closed", "hidden"),
        ("\\u0067old_answer: lima", "hidden"),
        ("the answer that was expected", "the answer that was expected"),
    ],
)
def test_names_go_with_what_they_are_given_as(text: str, left: str) -> None:
    assert without(text, EVALUATOR) == left
    assert named(left, EVALUATOR) == ""


def test_names_of_a_rollouts_own_verifier_are_known_where_they_are_no_everyday_words() -> None:
    judged = replace(rollout(["x"]), verdict=Verdict(1.0, True, {"end_state": 1, "told": 2, "dbMatch": 3}))
    assert {"end_state", "dbMatch", "gold_answer"} <= names(judged)
    assert "told" not in names(judged)


def test_no_trace_holds_what_a_verifier_said() -> None:
    one = pair().rollouts[0]
    said = '{"gold_actions": ["refund"], "cabin": "basic"}'
    told = replace(one, messages=tuple({**m, "content": said} if m["role"] == "tool" else m for m in one.messages))
    seen = render(trace_of(told, literals_of(pair(), LAB), LAB))
    assert "refund" not in seen
    assert '"cabin": "basic"' in seen
