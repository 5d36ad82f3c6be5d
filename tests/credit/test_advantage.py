"""Advantages against the golden vectors of GRPO and their own definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.scoring import credit_of
from sgcd.credit.advantage import EPSILON, advantages
from sgcd.credit.methods.grpo import Grpo
from sgcd.records import Rollout, Verdict

GOLDEN = [(1, 2.47487, -0.35355), (3, 1.20761, -0.72457), (7, 0.35355, -2.47487)]


@pytest.mark.parametrize(("successes", "success", "failure"), GOLDEN)
def test_eight_siblings_with_sample_std(successes: int, success: float, failure: float) -> None:
    got = advantages([1.0] * successes + [0.0] * (8 - successes))
    assert got == pytest.approx([success] * successes + [failure] * (8 - successes), abs=2e-5)


def test_without_std_it_is_the_distance_from_the_mean() -> None:
    assert advantages([1, 0, 0, 0], scale_by_std=False) == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_leave_one_out_compares_with_the_others_alone() -> None:
    rewards = [1.0, 0.0, 0.5, 0.0]
    others = [np.mean(rewards[:k] + rewards[k + 1 :]) for k in range(4)]
    expected = np.subtract(rewards, others)
    assert advantages(rewards, "leave_one_out", scale_by_std=False) == pytest.approx(expected)
    assert advantages(rewards, "leave_one_out") == pytest.approx(expected / (np.std(rewards, ddof=1) + EPSILON))


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("size", [0, 1, 2, 7])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("std", [True, False])
def test_a_group_without_spread_says_exactly_nothing(reward: float, size: int, baseline: str, std: bool) -> None:
    got = advantages([reward] * size, baseline, std)  # pyright: ignore[reportArgumentType]
    assert got.shape == (size,)
    assert not got.any()


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=9), st.booleans(), st.booleans())
def test_they_cancel_and_keep_the_order_of_rewards(rewards: list[float], alone: bool, std: bool) -> None:
    got = advantages(rewards, "leave_one_out" if alone else "group_mean", std)
    assert got.sum() == pytest.approx(0, abs=1e-9)
    order = np.argsort(rewards, kind="stable")
    assert (np.diff(got[order]) >= -1e-12).all()


def test_grpo_gives_every_token_the_advantage() -> None:
    four = np.arange(4)
    rollout = Rollout(
        "t", "action", 0, 0, four.astype(np.int32), 0, four.astype(np.int32), four % 2 == 0, four.astype(np.uint8),
        np.zeros(4, np.float32), (), (), (), "answered", Verdict(1.0, True),
    )  # fmt: skip
    credit = credit_of(Grpo(), rollout, -0.5, None).credit
    assert credit.token_advantage.tolist() == [-0.5, -0.5, -0.5, -0.5]
    assert (credit.cap, credit.floor) == (1.0, 1.0)
