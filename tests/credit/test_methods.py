"""All methods of the recipe: what each promises by its role, that its zero is GRPO, and its formula in float64."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from statistics import mean
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import Phase, given, note
from hypothesis import settings as profile

from helpers.credit_cases import (
    between,
    build,
    build_inputs,
    by_token,
    credit_cases,
    gaps_of,
    pulls,
    three_siblings,
    turn_tokens,
)
from helpers.training_runs import group
from sgcd.credit.methods import CreditInputs, Method, find_method_class
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.settings import MethodSettings
from sgcd.credit.weights import weigh_between
from sgcd.credit_records import OWN_REFERENCE, Features
from sgcd.records import TokenKind

CLASSES = {get_args(each.model_fields["name"].annotation)[0]: each for each in get_args(get_args(MethodSettings)[0])}
ZEROS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "sgcd": {"gamma": 0},
    "turn_sgcd": {"low": 1},
    "entropy": {"high": 1},
    "surprisal": {"high": 1},
    "parting": {"high": 1},
    "thinking_mask": {"weight": 1},
    "random": {"high": 1},
    "opd": {"coefficient": 0},
    "departure": {"high": 1},
    "rlsd": {"strength": 0},
    "grsd": {"strength": 0},
    "direct_sd": {"coefficient": 0},
    "sod": {"coefficient": 0},
    "sdar": {"coefficient": 0},
    "centred_gate": {"floor": 1},
    "gigpo": {"coefficient": 0},
    "by_turn": {"coefficient": 0},
    "turn_values": {"coefficient": 0},
    "hindsight": {"coefficient": 0},
    "opsd": {"reward_coefficient": 1},
    "sdpo": {"reward_coefficient": 1},
    "contrast_pair": {"high": 1},
    "contrast_sign": {"high": 1},
    "excess": {"high": 1},
    "direction_gate": {"floor": 1},
    "agent_opsd": {"strength": 0},
    "opid": {"coefficient": 0},
    "skill_sd": {"coefficient": 0},
    "counterfactual": {"coefficient": 0},
    "scope": {"coefficient": 0, "reward_coefficient": 1},
    "ucob": {"coefficient": 0},
}
"""For each method the settings with which it is GRPO."""
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failing case is not made smaller: with thirty methods that takes minutes."""


def test_every_method_of_the_recipe_is_here_and_has_its_facts() -> None:
    assert {*ZEROS} == {*CLASSES} - {"own"}
    for name, settings in CLASSES.items():
        facts = find_method_class(settings).facts
        assert all((facts.signal, facts.source, facts.verified, facts.teacher))
        assert facts.keeps_sign == (settings.role == "credit" and name != "own")


@profile(max_examples=4, deadline=None, phases=PHASES)
@given(case=credit_cases())
def test_what_every_method_promises(case: list[CreditInputs]) -> None:
    for name in ZEROS:
        note(name)
        check_promises(name, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZEROS)
@profile(max_examples=60, deadline=None, phases=PHASES)
@given(case=credit_cases())
def test_what_a_method_promises_in_many_cases(name: str, case: list[CreditInputs]) -> None:
    check_promises(name, case)


def check_promises(name: str, case: list[CreditInputs]) -> None:
    """Weights are bounded numpy, keep the sign and are one where nothing may have credit; the inputs stay."""
    method, before = build(name), deepcopy(case)
    if method.needs_whole_step:
        method.observe_step(case)
    for inputs, copy in zip(case, before, strict=True):
        signal = method.assign_credit(inputs)
        credit, mask = signal.credit, inputs.creditable_tokens
        assert type(credit.weight) is np.ndarray and credit.weight.dtype == np.float32
        assert credit.floor <= 1 <= credit.cap and credit.cap <= 5
        assert (credit.weight >= np.float32(credit.floor)).all() and (credit.weight <= np.float32(credit.cap)).all()
        assert (np.sign(credit.token_advantage) == np.sign(credit.advantage)).all()
        if name != "thinking_mask":
            assert (credit.weight[~mask] == 1).all()
        if CLASSES[name].role == "credit":
            assert signal.pull is None and signal.imitate is None
        if signal.pull is not None:
            assert type(signal.pull) is np.ndarray and np.isfinite(signal.pull).all()
            assert not signal.pull[~mask].any()
        assert again(method, inputs) == again(method, copy)
        np.testing.assert_equal(inputs.entropy, copy.entropy)
        np.testing.assert_equal(inputs.logprobs, copy.logprobs)
        for teacher, features in inputs.features.items():
            np.testing.assert_equal(features.divergence, copy.features[teacher].divergence)
            np.testing.assert_equal(features.teacher_logprob_gap, copy.features[teacher].teacher_logprob_gap)


def again(method: Method, inputs: CreditInputs) -> bytes:
    return method.assign_credit(inputs).token_advantage.tobytes()


@profile(max_examples=4, deadline=None, phases=PHASES)
@given(case=credit_cases())
def test_the_zero_of_every_method_is_grpo_to_the_bit(case: list[CreditInputs]) -> None:
    for name, settings in ZEROS.items():
        note(name)
        method = build(name, **settings)
        for inputs in case:
            signal, expected = method.assign_credit(inputs), Grpo().assign_credit(inputs)
            assert signal.imitate is None or name in ("opsd", "sdpo")  # they are nothing else
            assert (signal.token_advantage == expected.token_advantage).all()


READS = [name for name in ZEROS if "require_reading" in CLASSES[name].model_fields]


@pytest.mark.parametrize("name", READS)
def test_a_reference_that_is_not_read_leaves_grpo(name: str) -> None:
    for inputs in (replace(each, reads_references=False) for each in three_siblings()):
        method = build(name)
        signal = method.assign_credit(inputs.without_unread(method.needs))
        assert (signal.token_advantage == np.float32(inputs.advantage)).all()
        assert inputs.unread(method.needs)


def test_what_needs_no_reading_and_what_is_imitated_stay() -> None:
    for inputs in (replace(each, reads_references=False) for each in three_siblings()):
        for name, changes in (
            ("rlsd", {"require_reading": False}),
            ("opd", {"context": "none", "teacher": "initial"}),
            ("direct_sd", {}),
            ("entropy", {}),
        ):
            method = build(name, **changes)
            assert not inputs.unread(method.needs)
            found = method.assign_credit(inputs.without_unread(method.needs))
            expected = method.assign_credit(inputs)
            assert (found.token_advantage == expected.token_advantage).all()
            assert (found.imitate is None) == (name != "direct_sd")


# -- formulas in float64, token by token ------------------------------------------------------------------------------


def entropy_formula(inputs: CreditInputs) -> list[float]:
    assert inputs.entropy is not None
    return between(inputs, [float(h) / 0.5 for h in inputs.entropy], 0.5, 2.0, True)


def surprisal_formula(inputs: CreditInputs) -> list[float]:
    assert inputs.logprobs is not None
    return between(inputs, [-float(p) / 2.0 for p in inputs.logprobs], 1.0, 3.0, False)


def thinking_formula(inputs: CreditInputs) -> list[float]:
    return [0.3 if kind == TokenKind.THINKING else 1.0 for kind in inputs.rollout.token_kinds]


def turn_formula(inputs: CreditInputs) -> list[float]:
    features = inputs.reference_features
    assert features is not None
    mask, d = inputs.creditable_tokens, features.divergence.astype(float)
    sums = [sum(d[t] for t in range(turn.start, turn.stop) if mask[t]) for turn in inputs.rollout.turns]
    share = [0.0] * len(d)
    for turn, total in zip(inputs.rollout.turns, sums, strict=True):
        share[turn.start : turn.stop] = [total / max(sums)] * (turn.stop - turn.start)
    return between(inputs, share, 0.2, 1.0, True)


def departure_formula(inputs: CreditInputs) -> list[float]:
    features = inputs.reference_features
    assert features is not None and inputs.entropy is not None
    share = [0.0] * len(features.divergence)
    for turn in inputs.rollout.turns:
        departed = 0.0
        for t in range(turn.start, turn.stop):
            d = float(features.divergence[t]) * bool(inputs.creditable_tokens[t])
            if inputs.entropy[t] >= 0.2:
                departed = 0.0
            if d >= 0.3:
                departed = max(departed, d)
            share[t] = (departed or d) / 0.6
    return between(inputs, share, 1.0, 2.0, False)


def rlsd_formula(inputs: CreditInputs) -> list[float]:
    strength, sign = 0.5 * max(0.0, 1 - inputs.step / 50), np.sign(inputs.advantage)
    return [
        (1 - strength) + strength * min(1.2, max(0.8, math.exp(sign * gap))) if on else 1.0
        for gap, on in zip(gaps_of(inputs), inputs.creditable_tokens, strict=True)
    ]


WEIGHT_FORMULAS: dict[str, tuple[dict[str, Any], Callable[[CreditInputs], list[float]]]] = {
    "entropy": ({"saturation": 0.5, "low": 0.5, "mean_one": True}, entropy_formula),
    "surprisal": ({"saturation": 2.0, "high": 3.0}, surprisal_formula),
    "thinking_mask": ({"weight": 0.3}, thinking_formula),
    "turn_sgcd": ({}, turn_formula),
    "departure": ({"end_entropy": 0.2}, departure_formula),
    "rlsd": ({}, rlsd_formula),
}


@pytest.mark.parametrize("name", WEIGHT_FORMULAS)
def test_weights_are_those_of_the_formula(name: str) -> None:
    changes, formula = WEIGHT_FORMULAS[name]
    method = build(name, **changes)
    for inputs in three_siblings():
        weight = method.assign_credit(inputs).credit.weight
        assert weight.tolist() == pytest.approx(formula(inputs), rel=1e-6)
        assert len({*weight.tolist()}) > 1


def test_a_segment_keeps_the_height_of_its_departure_until_a_higher_one() -> None:
    siblings = group("xxxxxx", "x")
    zero, divergence = np.zeros(6, np.float32), np.array([0.1, 0.4, 0.3, 0, 0.5, 0], np.float32)
    features = {OWN_REFERENCE: Features(divergence, zero, zero)}
    inputs = CreditInputs(siblings.rollouts[0], 1.0, features, group=siblings, entropy=zero)
    weight = build("departure", saturation=1.0).assign_credit(inputs).credit.weight
    assert weight.tolist() == pytest.approx([1.1, 1.4, 1.4, 1.4, 1.5, 1.5])


def test_grsd_scales_each_turn_by_its_group() -> None:
    case, method = three_siblings(), build("grsd", clip=0.9)
    method.observe_step(case)
    values = [
        [
            math.expm1(float(np.sign(inputs.advantage)) * mean(gaps_of(inputs)[t] for t in tokens))
            for tokens in turn_tokens(inputs)
        ]
        for inputs in case
    ]
    scale = mean(abs(value) for each in values for value in each) + 1e-6
    for inputs, own in zip(case, values, strict=True):
        weights = [max(0.1, 1 + 0.5 * min(0.9, max(-0.9, value / scale))) for value in own]
        found = method.assign_credit(inputs).credit.weight
        assert found.tolist() == pytest.approx(by_token(inputs, weights, 1.0), rel=1e-6)


def test_sod_trusts_a_turn_less_that_is_further_from_the_teacher_than_the_first() -> None:
    case = three_siblings()
    for inputs, found in zip(case, pulls("sod", case, coefficient=0.5, margin=0.3), strict=True):
        gaps = gaps_of(inputs)
        distances = [mean(abs(gaps[t]) for t in tokens) for tokens in turn_tokens(inputs)]
        weights, product = [1.0], 1.0
        for before, after in pairwise(distances):
            product *= (before + 1e-6) / (after + 1e-6)
            weights.append(min(product, 1.3))
        expected = [0.5 * weight * gap for weight, gap in zip(by_token(inputs, weights, 0.0), gaps, strict=True)]
        assert found == pytest.approx(expected, rel=1e-5)


def test_sdar_pulls_sampled_tokens_up_by_a_gate() -> None:
    case = three_siblings()
    for inputs, found in zip(case, pulls("sdar", case, coefficient=0.1), strict=True):
        gated = [0.1 / (1 + math.exp(-5 * gap)) for gap in gaps_of(inputs)]
        assert found == pytest.approx(np.where(inputs.creditable_tokens, gated, 0).tolist(), rel=1e-5)


def test_the_centred_gate_gives_nothing_to_a_verdict_that_was_dealt_by_chance() -> None:
    """Its value by the formula; and summed over all deals of the verdicts it is zero at each token."""
    case = three_siblings()
    dealt = case[0].group_advantages
    for inputs, found in zip(case, pulls("centred_gate", case, floor=0.3), strict=True):
        for gap, pull, on in zip(gaps_of(inputs), found, inputs.creditable_tokens, strict=True):
            gated = [(1.0 if a * gap >= 0 else 0.3) * a for a in [inputs.advantage, *dealt]]
            expected = gated[0] - sum(gated[1:]) / len(dealt) - inputs.advantage
            assert pull == pytest.approx(expected if on else 0, abs=1e-6)
    first = case[0]
    each_deal = [pulls("centred_gate", [replace(first, advantage=a)])[0] for a in dealt]
    sums = np.sum([np.array(pull) + a for pull, a in zip(each_deal, dealt, strict=True)], axis=0)
    assert np.abs(sums[first.creditable_tokens]).max() < 1e-6


def test_gigpo_compares_turns_that_start_from_the_same_state() -> None:
    """All first turns start alike; the second of both the first and the second rollout come after `late`."""
    case = three_siblings()
    returns = [[0.9**2, 0.9, 1.0], [0.0, 0.0], [0.0, 0.0]]
    first, late, paid = 0.81 / 3, 0.9 / 2, 1.0 / 2
    baselines = [[first, late, paid], [first, late], [first, paid]]
    for inputs, found, own, base in zip(case, pulls("gigpo", case, discount=0.9), returns, baselines, strict=True):
        expected = [value - baseline for value, baseline in zip(own, base, strict=True)]
        assert found == pytest.approx(by_token(inputs, expected, 0.0), rel=1e-6)
    dealt = [case[0].group_advantages[index] for index in (1, 0, 2)]
    permuted = [replace(inputs, group_advantages=dealt) for inputs in case]
    assert [inputs.group_rewards for inputs in permuted] == [[0, 1, 0]] * 3
    assert pulls("gigpo", permuted)[1] != pulls("gigpo", case)[1]


def test_hindsight_raises_likely_turns_of_successes_and_harms_none_of_them() -> None:
    case = three_siblings(wins=2)
    values = [
        [
            inputs.rollout.reward * min(9.0, max(1 / 9, math.exp(mean(gaps_of(inputs)[t] for t in tokens))))
            for tokens in turn_tokens(inputs)
        ]
        for inputs in case
    ]
    baseline = mean(value for each in values for value in each)
    for inputs, found, own in zip(case, pulls("hindsight", case, max_ratio=9), values, strict=True):
        expected = [max(0.0, value - baseline) if inputs.rollout.reward else value - baseline for value in own]
        assert found == pytest.approx(by_token(inputs, expected, 0.0), rel=1e-5)


def test_random_weights_follow_from_the_rollout_s_seed_and_have_their_share() -> None:
    inputs = build_inputs(group("x" * 4000, "x"), seed=1)[0]
    weight = build("random", share=0.3, high=1.5).assign_credit(inputs).credit.weight[inputs.creditable_tokens]
    assert np.mean(weight > 1) == pytest.approx(0.3, abs=0.03)
    assert np.mean(weight[weight > 1]) == pytest.approx(1.25, abs=0.02)


def test_weights_of_mean_one_move_credit_and_add_none() -> None:
    share, tokens = np.array([0, 1, 0.5, np.nan, 1]), np.array([True, True, True, True, False])
    weight, bounds = weigh_between(share, tokens, low=0.2, high=1.0, mean_one=True)
    assert weight[tokens].mean() == pytest.approx(1)
    assert weight.tolist() == pytest.approx([0.4, 2.0, 1.2, 0.4, 1.0])
    assert bounds == (0.2, 5.0)
