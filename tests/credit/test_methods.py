"""All methods of the recipe: what each promises by its role, that its zero is GRPO, and its formula in float64."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from pydantic import TypeAdapter

from helpers.credit_cases import build_inputs, credit_cases
from helpers.training_runs import group
from sgcd.credit.methods import CreditInputs, Method, build_method, find_method_class
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.settings import MethodSettings
from sgcd.credit.weights import weigh_between
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
    "direct_sd": {"coefficient": 0},
}
"""For each method the settings with which it is GRPO."""
CREDIT_ALONE = [name for name in ZEROS if CLASSES[name].role == "credit"]


def build(name: str, **changes: Any) -> Method:
    return build_method(TypeAdapter[Any](MethodSettings).validate_python({"name": name, **changes}))


def test_every_method_of_the_recipe_is_here_and_has_its_facts() -> None:
    assert {*ZEROS} == {*CLASSES} - {"own"}
    for name, settings in CLASSES.items():
        facts = find_method_class(settings).facts
        assert all((facts.signal, facts.source, facts.verified, facts.teacher))
        assert facts.keeps_sign == (settings.role == "credit" and name != "own")


@pytest.mark.parametrize("name", ZEROS)
@profile(max_examples=12, deadline=None)
@given(case=credit_cases())
def test_what_a_method_promises(name: str, case: list[CreditInputs]) -> None:
    """Weights are bounded numpy, keep the sign and are one where nothing may have credit; the inputs stay."""
    method, before = build(name), deepcopy(case)
    if method.needs_calibration:
        method.calibrate(case)
    for inputs, copy in zip(case, before, strict=True):
        signal = method.assign_credit(inputs).signal
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
    return method.assign_credit(inputs).signal.token_advantage.tobytes()


@pytest.mark.parametrize("name", ZEROS)
@profile(max_examples=6, deadline=None)
@given(case=credit_cases())
def test_its_zero_is_grpo_to_the_bit(name: str, case: list[CreditInputs]) -> None:
    method = build(name, **ZEROS[name])
    for inputs in case:
        signal, expected = method.assign_credit(inputs).signal, Grpo().assign_credit(inputs).signal
        assert signal.imitate is None
        assert (signal.token_advantage == expected.token_advantage).all()


# -- formulas in float64, token by token ------------------------------------------------------------------------------


def between(inputs: CreditInputs, share: list[float], low: float, high: float, mean_one: bool) -> list[float]:
    mask = inputs.creditable_tokens
    weights = [low + (high - low) * min(1.0, max(0.0, s)) if on else 1.0 for s, on in zip(share, mask, strict=True)]
    mean = sum(w for w, on in zip(weights, mask, strict=True) if on) / max(1, int(mask.sum()))
    return [w / mean if on and mean_one else w for w, on in zip(weights, mask, strict=True)]


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


WEIGHT_FORMULAS: dict[str, tuple[dict[str, Any], Callable[[CreditInputs], list[float]]]] = {
    "entropy": ({"saturation": 0.5, "low": 0.5, "mean_one": True}, entropy_formula),
    "surprisal": ({"saturation": 2.0, "high": 3.0}, surprisal_formula),
    "thinking_mask": ({"weight": 0.3}, thinking_formula),
    "turn_sgcd": ({}, turn_formula),
}


@pytest.mark.parametrize("name", WEIGHT_FORMULAS)
def test_weights_are_those_of_the_formula(name: str) -> None:
    changes, formula = WEIGHT_FORMULAS[name]
    method = build(name, **changes)
    siblings = group("xxx.xxxxx.xx", "xx.xxxx", ".xx..xxxx")
    kinds = [np.resize([1, 2, 3], len(each.response)) * each.response_mask for each in siblings.rollouts]
    rollouts = [replace(each, token_kinds=kind) for each, kind in zip(siblings.rollouts, kinds, strict=True)]
    for inputs in build_inputs(replace(siblings, rollouts=tuple(rollouts)), seed=5):
        weight = method.assign_credit(inputs).signal.credit.weight
        assert weight.tolist() == pytest.approx(formula(inputs), rel=1e-6)
        assert len({*weight.tolist()}) > 1


def test_random_weights_follow_from_the_rollout_s_seed_and_have_their_share() -> None:
    inputs = build_inputs(group("x" * 4000, "x"), seed=1)[0]
    weight = build("random", share=0.3, high=1.5).assign_credit(inputs).signal.credit.weight[inputs.creditable_tokens]
    assert np.mean(weight > 1) == pytest.approx(0.3, abs=0.03)
    assert np.mean(weight[weight > 1]) == pytest.approx(1.25, abs=0.02)


def test_weights_of_mean_one_move_credit_and_add_none() -> None:
    share, tokens = np.array([0, 1, 0.5, np.nan, 1]), np.array([True, True, True, True, False])
    weight, bounds = weigh_between(share, tokens, low=0.2, high=1.0, mean_one=True)
    assert weight[tokens].mean() == pytest.approx(1)
    assert weight.tolist() == pytest.approx([0.4, 2.0, 1.2, 0.4, 1.0])
    assert bounds == (0.2, 5.0)
