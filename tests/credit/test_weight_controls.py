"""Controls on weights keep what they say: the mean, the distribution, or what siblings that wrote the same share."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from helpers.credit_cases import build_inputs, credit_cases
from helpers.training_runs import group
from sgcd.cli import main
from sgcd.credit.methods import CreditInputs, Method, build_method
from sgcd.credit.settings import EntropySettings, SegmentSettings, SgcdSettings
from sgcd.credit.weight_controls import ControlledWeights, shuffle_weights, tie_weights
from sgcd.errors import MethodFault
from sgcd.settings import WeightControl

SGCD = SgcdSettings(name="sgcd", min_entropy=0, segments=SegmentSettings(scale="absolute", min_tokens=1), floor=0.5)


def weights(method: Method, case: list[CreditInputs]) -> list[np.ndarray]:
    if method.needs_whole_step:
        method.observe_step(case)
    return [method.assign_credit(inputs).credit.weight for inputs in case]


def creditable(case: list[CreditInputs], found: list[np.ndarray]) -> list[np.ndarray]:
    return [weight[inputs.creditable_tokens] for inputs, weight in zip(case, found, strict=True)]


@profile(max_examples=12, deadline=None)
@given(case=credit_cases(), seed=st.integers(0, 99))
def test_each_control_keeps_what_it_says(case: list[CreditInputs], seed: int) -> None:
    plain = weights(build_method(SGCD), case)
    found = {
        control: weights(ControlledWeights(build_method(SGCD), control, seed), case)
        for control in WeightControl.__args__
    }
    for inputs, *all_weights in zip(case, plain, *found.values(), strict=True):
        for weight in all_weights[1:]:
            assert weight.dtype == np.float32
            assert (weight[~inputs.creditable_tokens] == all_weights[0][~inputs.creditable_tokens]).all()
    own = creditable(case, plain)
    for mine, uniform, shuffled in zip(
        own, creditable(case, found["uniform_weights"]), creditable(case, found["shuffled_weights"]), strict=True
    ):
        assert sorted(shuffled) == sorted(mine)
        if mine.size:
            assert len({*uniform.tolist()}) == 1
            assert np.isclose(uniform[0], mine.mean(), atol=1e-6)
    everything, same = np.concatenate(own), np.concatenate(creditable(case, found["mean_weight"]))
    tied = np.concatenate(creditable(case, found["tied_weights"]))
    if everything.size:
        assert len({*same.tolist()}) == 1 and np.isclose(same[0], everything.mean(), atol=1e-6)
        assert np.isclose(tied.mean(), everything.mean(), atol=1e-5)


def test_tied_weights_are_the_mean_of_siblings_that_wrote_the_same() -> None:
    case = build_inputs(group("xxxx", "xxxx", "xxxx"), 0)
    for inputs, response in zip(case, ([1, 2, 3, 4], [1, 2, 9, 4], [5, 2, 3, 4]), strict=True):
        object.__setattr__(inputs, "outside_literals", None)
        object.__setattr__(inputs.rollout, "response", np.array(response, np.int32))
    own = [np.array(row, np.float32) for row in ([1, 2, 1, 2], [2, 1, 2, 1], [1, 2, 1, 2])]
    tied = tie_weights(case, own)
    assert [row.tolist() for row in tied] == [[1.5, 1.5, 1, 2], [1.5, 1.5, 2, 1], [1, 2, 1, 2]]
    other_task = build_inputs(group("xxxx", task="other"), 0)
    object.__setattr__(other_task[0].rollout, "response", np.array([1, 2, 3, 4], np.int32))
    assert tie_weights([*case, *other_task], [*own, own[1]])[3].tolist() == [2, 1, 2, 1]


def test_the_deal_follows_from_the_seed() -> None:
    weight, every = np.arange(1, 40, dtype=np.float32), np.ones(39, bool)
    assert (shuffle_weights(weight, every, 3) == shuffle_weights(weight, every, 3)).all()
    assert (shuffle_weights(weight, every, 3) != shuffle_weights(weight, every, 4)).any()


def test_weights_that_are_not_read_stay_one() -> None:
    [inputs, _] = build_inputs(group("xxxxxxxx", "xxxxxxxx"), 1)
    object.__setattr__(inputs, "reads_references", False)
    for control in WeightControl.__args__:
        method = ControlledWeights(build_method(SGCD), control, 0)
        expected = build_method(SGCD).assign_credit(inputs).credit.weight
        assert (method.assign_credit(inputs).credit.weight == expected).all()


def test_a_control_that_must_see_the_step_refuses_a_method_without_a_teacher() -> None:
    entropy: Any = build_method(EntropySettings(name="entropy"))
    ControlledWeights(entropy, "uniform_weights", 0)
    with pytest.raises(MethodFault, match="control: tied_weights must see a step's weights"):
        ControlledWeights(entropy, "tied_weights", 0)


@pytest.mark.parametrize(
    ("method", "control", "line"),
    [
        ("{name: opd}", "uniform_weights", "method.name=opd has a pull as well, expected none or permuted"),
        ("{name: entropy}", "mean_weight", "control: mean_weight must see a step's weights before its first gradient"),
        ("{name: sgcd}", "uniform", "control: expected one of none, permuted, uniform_weights"),
    ],
)
def test_a_control_without_meaning_is_one_line(
    capsys: pytest.CaptureFixture[str], method: str, control: str, line: str
) -> None:
    assert main(["check", "recipes/lab/grpo.yaml", f"method={method}", f"control={control}"]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert line in said
