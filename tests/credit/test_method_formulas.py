"""Methods that compare two teachers, turns of siblings, or outcomes: their formulas in float64, token by token."""

import math
from dataclasses import replace
from statistics import mean, pstdev

import numpy as np
import pytest

from helpers.credit_cases import between, build, by_token, gaps_of, pulls, three_siblings, turn_tokens
from sgcd.credit.methods import CreditInputs
from sgcd.credit_records import OWN_REFERENCE, Teacher
from sgcd.records import TokenKind


def weights(name: str, inputs: CreditInputs, **changes: object) -> list[float]:
    return build(name, **changes).assign_credit(inputs).credit.weight.tolist()


def undecided(inputs: CreditInputs, share: list[float]) -> list[float]:
    assert inputs.reference_features is not None and inputs.reference_features.student_entropy is not None
    entropies = inputs.reference_features.student_entropy.tolist()
    assert any(entropy < np.float32(0.1) for entropy in entropies)
    return [one if entropy >= np.float32(0.1) else 0.0 for one, entropy in zip(share, entropies, strict=True)]


def test_a_contrast_weighs_by_the_log_ratio_of_two_teachers_and_a_signed_one_by_its_way() -> None:
    for inputs in three_siblings():
        gaps, sign = gaps_of(inputs), float(np.sign(inputs.advantage))
        share = undecided(inputs, [abs(gap) / 0.8 for gap in gaps])
        found = weights("contrast_pair", inputs, saturation=0.8, low=0.5)
        assert found == pytest.approx(between(inputs, share, 0.5, 2.0, False), rel=1e-6)
        signed = undecided(inputs, [max(0.0, sign * gap) / 0.8 for gap in gaps])
        found = weights("contrast_sign", inputs, saturation=0.8)
        assert found == pytest.approx(between(inputs, signed, 1.0, 2.0, False), rel=1e-6)
    for name in ("contrast_pair", "contrast_sign"):
        needs = build(name).needs
        assert needs is not None and needs.compare_with == "swapped"


def test_an_excess_is_what_the_own_text_adds_to_another_one() -> None:
    for inputs in three_siblings():
        own, other = (inputs.features[Teacher(context)].divergence.tolist() for context in ("reference", "neutral"))
        share = undecided(inputs, [max(0.0, a - b) / 0.3 for a, b in zip(own, other, strict=True)])
        assert weights("excess", inputs) == pytest.approx(between(inputs, share, 1.0, 2.0, False), rel=1e-6)
        assert {*weights("excess", replace(inputs, features={OWN_REFERENCE: inputs.features[OWN_REFERENCE]}))} == {1.0}


def test_a_gate_leaves_its_floor_where_the_teacher_goes_the_other_way() -> None:
    for inputs in three_siblings():
        expected = [
            0.3 if on and gap * inputs.advantage < 0 else 1.0
            for gap, on in zip(gaps_of(inputs), inputs.creditable_tokens, strict=True)
        ]
        assert weights("direction_gate", inputs, floor=0.3) == pytest.approx(expected)
        assert len({*expected}) > 1


def test_agent_opsd_weighs_turns_by_the_revision_of_a_belief() -> None:
    for inputs in three_siblings():
        logit, before, revisions = math.log(0.4 / 0.6), 0.4, list[float]()
        for tokens in turn_tokens(inputs):
            logit += sum(gaps_of(inputs)[t] for t in tokens)
            belief = min(1 - 1e-6, max(1e-6, 1 / (1 + math.exp(-logit))))
            revisions.append(belief - before)
            before = belief
        z = [(one - mean(revisions)) / (pstdev(revisions) + 1e-6) for one in revisions]
        sign = float(np.sign(inputs.advantage))
        expected = [0.25 + 0.75 * min(1.3, max(0.7, 1 + 0.3 * sign * one)) for one in z]
        found = weights("agent_opsd", inputs, prior=0.4, band=0.3, strength=0.75)
        assert found == pytest.approx(by_token(inputs, expected, 1.0), rel=1e-5)


@pytest.mark.parametrize("name", ["opid", "skill_sd"])
def test_small_doses_of_a_teacher_are_its_log_ratio(name: str) -> None:
    case = three_siblings()
    for inputs, found in zip(case, pulls(name, case), strict=True):
        expected = np.where(inputs.creditable_tokens, 0.001 * np.array(gaps_of(inputs)), 0)
        assert found == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_counterfactual_pulls_to_the_teacher_where_what_it_prefers_did_better() -> None:
    """All first turns start alike; then one state follows `late` and another `paid`."""
    case = three_siblings()
    ratios = [
        [min(3.0, max(1 / 3, math.exp(mean(gaps_of(inputs)[t] for t in tokens)))) for tokens in turn_tokens(inputs)]
        for inputs in case
    ]
    dealt = case[0].group_advantages
    places = {"": [(0, 0), (1, 0), (2, 0)], "late": [(0, 1), (1, 1)], "paid": [(0, 2), (2, 1)]}
    changes = {
        state: sum(ratios[i][k] * dealt[i] for i, k in turns) / sum(ratios[i][k] for i, k in turns)
        - mean(dealt[i] for i, _ in turns)
        for state, turns in places.items()
    }
    states = [["", "late", "paid"], ["", "late"], ["", "paid"]]
    for inputs, found, own in zip(case, pulls("counterfactual", case, max_ratio=3), states, strict=True):
        by_turn = by_token(inputs, [changes[state] for state in own], 0.0)
        expected = [change * gap for change, gap in zip(by_turn, gaps_of(inputs), strict=True)]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_scope_sends_failures_to_the_teacher_and_makes_successes_likelier() -> None:
    """The weights of each path have mean one: unlikely successes and failures that the teacher finds likely count."""
    case = three_siblings(wins=1)
    method = build("scope", temperature=2.0, coefficient=0.5)
    method.observe_step(case)
    signals = [method.assign_credit(inputs) for inputs in case]
    assert signals[0].pull is not None and signals[0].imitate is None
    assert signals[0].pull.tolist() == pytest.approx(np.where(case[0].creditable_tokens, 0.5, 0).tolist())
    scores = list[float]()
    for inputs in case[1:]:
        assert inputs.logprobs is not None
        by_teacher = inputs.logprobs.astype(float) + np.array(gaps_of(inputs))
        scores.append(math.exp(float(by_teacher[inputs.creditable_tokens].mean()) / 2))
    for inputs, signal, score in zip(case[1:], signals[1:], scores, strict=True):
        assert signal.pull is None and signal.imitate is not None
        assert signal.imitate.coefficient == 0.5
        expected = np.where(inputs.creditable_tokens, 2 * score / sum(scores), 0).tolist()
        assert signal.imitate.weight.tolist() == pytest.approx(expected, rel=1e-5)
        assert not signal.credit.token_advantage.any()


def test_ucob_lets_better_turns_imitate_the_teacher() -> None:
    """Returns .81, .9 and 1 of the success; its siblings' are zero in the same states."""
    case = three_siblings(wins=1)
    method = build("ucob", discount=0.9, scale=0.6)
    found = [method.assign_credit(inputs).imitate for inputs in case]
    assert found[1] is None and found[2] is None and found[0] is not None
    assert found[0].coefficient == 0.1
    by_turn = by_token(case[0], [min(2.0, value / 0.6) for value in (0.81, 0.9, 1.0)], 0.0)
    is_call = case[0].rollout.token_kinds == TokenKind.CALL
    expected = [
        weight * (2 if call else 1) / (1 + math.exp(-5 * gap))
        for weight, call, gap in zip(by_turn, is_call, gaps_of(case[0]), strict=True)
    ]
    assert found[0].weight.tolist() == pytest.approx(expected, rel=1e-5)
