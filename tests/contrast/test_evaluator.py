"""What a verifier says is taken out whole, by its names."""

from dataclasses import replace

import pytest

from helpers.group import LAB, pair, rollout
from sgcd.contrast.leakage.literals import find_literals
from sgcd.contrast.leakage.verifier_names import (
    VERIFIER_NAMES,
    collect_verifier_names,
    find_verifier_name,
    remove_verifier_data,
)
from sgcd.contrast.trace import build_trace, render_trace
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
    assert remove_verifier_data(text, VERIFIER_NAMES) == left
    assert find_verifier_name(left, VERIFIER_NAMES) == ""


def test_names_of_a_rollouts_own_verifier_are_known_where_they_are_no_everyday_words() -> None:
    judged = replace(rollout(["x"]), verdict=Verdict(1.0, True, {"end_state": 1, "told": 2, "dbMatch": 3}))
    assert {"end_state", "dbMatch", "gold_answer"} <= collect_verifier_names(judged)
    assert "told" not in collect_verifier_names(judged)


def test_no_trace_holds_what_a_verifier_said() -> None:
    one = pair().rollouts[0]
    said = '{"gold_actions": ["refund"], "cabin": "basic"}'
    told = replace(one, messages=tuple({**m, "content": said} if m["role"] == "tool" else m for m in one.messages))
    seen = render_trace(build_trace(told, find_literals(pair(), LAB), LAB))
    assert "refund" not in seen
    assert '"cabin": "basic"' in seen
