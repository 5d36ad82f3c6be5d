"""SGCD as a method: what it says of one rollout, in full, and every way in which it says nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from helpers.scoring import credit_of
from sgcd.credit.methods import Needs
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import MethodSettings
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.credit_records import Features
from sgcd.errors import RecordError
from sgcd.records import Flags, Rollout, Turn, Verdict

PUBLISHED = Sgcd(SgcdSettings(name="sgcd"))


def options(**changes: Any) -> Sgcd:
    return Sgcd(SgcdSettings(name="sgcd", **changes))


def rollout(size: int = 40, turns: tuple[Turn, ...] = (Turn(0, 20), Turn(24, 40))) -> Rollout:
    """Two turns of the policy, four tokens of an observation between them."""
    mask = np.zeros(size, bool)
    for turn in turns:
        mask[turn.start : turn.stop] = True
    return Rollout(
        task="t1",
        category="action",
        sibling=3,
        seed=0,
        prompt=np.zeros(2, np.int32),
        reference_position=1,
        response=np.zeros(size, np.int32),
        response_mask=mask,
        token_kinds=np.where(mask, 2, 0).astype(np.uint8),
        sampling_logprobs=np.zeros(size, np.float32),
        turns=turns,
        messages=(),
        tools=(),
        end_reason="answered",
        verdict=Verdict(0.0, False),
    )


def features(size: int = 40, gap: float = 0.0, **spikes: float) -> Features:
    """No divergence anywhere but at the spikes: features(d10=.4)."""
    d = np.zeros(size, np.float32)
    for name, value in spikes.items():
        d[int(name[1:])] = value
    return Features(d, np.zeros(size, np.float32), np.full(size, gap, np.float32))


def test_one_rollout_in_full():
    got = credit_of(PUBLISHED, rollout(), -0.5, features(d17=0.4, d30=0.09))
    #         a spike on the last but two tokens of a turn; another that is under d_min
    expected = np.ones(40, np.float32)
    expected[17:20] = 2
    assert got.credit.weight.tolist() == expected.tolist()
    assert got.credit.token_advantage.tolist() == (expected * -0.5).tolist()
    assert (got.credit.cap, got.credit.floor) == (2.0, 1.0)
    assert [(s.start, s.stop, s.saliency) for s in got.segments.spans] == [(17, 20, 1.0)]
    assert (got.segments.reason, got.segments.num_valid, got.segments.num_nonfinite) == ("", 36, 0)
    assert (
        credit_of(PUBLISHED, rollout(), -0.5, features(d17=0.4, d30=0.09)).credit.weight.tolist() == expected.tolist()
    )


def test_turns_that_touch_are_told_apart():
    touching = rollout(turns=(Turn(0, 20), Turn(20, 40)))
    weight = credit_of(PUBLISHED, touching, 1.0, features(d17=0.4)).credit.weight
    assert np.flatnonzero(weight > 1).tolist() == [17, 18, 19]


def test_a_masked_literal_keeps_weight_one():
    free = np.ones(40, bool)
    free[18] = False
    weight = credit_of(PUBLISHED, rollout(), 1.0, features(d17=0.4), free).credit.weight
    assert np.flatnonzero(weight > 1).tolist() == [17, 19]
    free[17] = False
    assert (credit_of(PUBLISHED, rollout(), 1.0, features(d17=0.4), free).credit.weight == 1).all()


@pytest.mark.parametrize(
    ("changes", "sure", "credited"),
    [
        ({}, {}, [17, 18, 19]),
        ({}, {18: 0.0}, [17, 19]),
        ({}, {18: 0.0999, 19: 0.1}, [17, 19]),
        ({}, {17: 0.0}, []),
        ({"min_entropy": 0.0}, {17: 0.0}, [17, 18, 19]),
        ({"min_entropy": 0.5}, {17: 0.4}, []),
        ({"floor": 0.2}, {17: 0.0}, []),
    ],
)
def test_a_token_at_which_the_student_is_sure_has_no_credit(
    changes: dict[str, Any], sure: dict[int, float], credited: list[int]
):
    student_entropy = np.ones(40, np.float32)
    for token, entropy in sure.items():
        student_entropy[token] = entropy
    scored = replace(features(d17=0.4), student_entropy=student_entropy)
    weight = credit_of(options(**changes), rollout(), 1.0, scored).credit.weight
    assert np.flatnonzero(weight != 1).tolist() == credited


def test_below_the_floor_goes_no_token_at_which_the_student_is_sure():
    student_entropy = np.ones(40, np.float32)
    student_entropy[5] = 0.0
    scored = replace(features(d17=0.4), student_entropy=student_entropy)
    weight = credit_of(options(floor=0.2), rollout(), 1.0, scored).credit.weight
    assert weight[4:7].tolist() == pytest.approx([0.2, 1.0, 0.2])


@pytest.mark.parametrize(
    ("played", "scored", "reason"),
    [
        (rollout(), None, "no_reference"),
        (rollout(), features(), "flat"),
        (rollout(turns=(Turn(0, 15),)), features(d10=0.4), "few_tokens"),
        (rollout(turns=()), features(d10=0.4), "few_tokens"),
        (rollout(0, ()), features(0), "few_tokens"),
        (rollout(0, ()), None, "no_reference"),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"floor": 0.2}, {"floor": 0.2, "mean_one": True}, {"direction_gate": True}])
def test_where_there_is_nothing_to_say_every_weight_is_one_and_the_reason_is_given(
    played: Rollout, scored: Features | None, reason: str, changes: dict[str, Any]
):
    got = credit_of(options(**changes), played, 1.5, scored)
    assert got.credit.weight.tolist() == [1.0] * len(played.response)
    assert (got.segments.reason, got.segments.spans) == (reason, ())


def test_neither_literals_nor_observations_are_attenuated():
    free = np.ones(40, bool)
    free[[2, 18]] = False
    weight = credit_of(options(floor=0.25), rollout(), 1.0, features(d17=0.4), free).credit.weight
    expected = np.full(40, 0.25, np.float32)
    expected[[2, 18, 20, 21, 22, 23]] = 1
    expected[[17, 19]] = 2
    assert weight.tolist() == expected.tolist()


def test_a_zero_advantage_stays_zero():
    credit = credit_of(PUBLISHED, rollout(), 0.0, features(d10=0.4)).credit
    assert credit.weight.max() == 2
    assert credit.token_advantage.tolist() == [0.0] * 40


@pytest.mark.parametrize("changes", [{}, {"floor": 0.1}, {"floor": 0.1, "mean_one": True}, {"direction_gate": True}])
@pytest.mark.parametrize("advantage", [-0.35355, 0.1, 2.47487, 0.0])
def test_gamma_zero_is_grpo_to_the_last_bit(changes: dict[str, Any], advantage: float):
    ours = credit_of(options(gamma=0.0, **changes), rollout(), advantage, features(d10=0.4, d30=0.9)).credit
    grpo = credit_of(Grpo(), rollout(), advantage, None).credit
    assert ours.weight.tobytes() == grpo.weight.tobytes()
    assert ours.token_advantage.tobytes() == grpo.token_advantage.tobytes()


def test_the_extensions_are_what_their_names_say():
    x = features(d10=0.4, gap=0.3)
    floor = credit_of(options(floor=0.25), rollout(), 1.0, x).credit
    assert (floor.floor, floor.weight[10], floor.weight[0], floor.weight[21]) == (0.25, 2.0, 0.25, 1.0)
    even = credit_of(options(floor=0.25, mean_one=True), rollout(), 1.0, x).credit.weight
    assert even[rollout().response_mask].mean() == pytest.approx(1)
    for advantage, credited in ((1.0, True), (-1.0, False)):
        gated = credit_of(options(direction_gate=True), rollout(), advantage, x)
        assert (gated.credit.weight.max() > 1, bool(gated.segments.spans)) == (credited, credited)
    calm = credit_of(options(segments={"scale": "absolute"}), rollout(), 1.0, features(d10=0.25)).credit.weight
    assert calm.max() == 1


def test_one_nan_is_left_out_and_with_more_than_one_percent_the_rollout_has_no_credit():
    x = features(d17=0.4)
    x.divergence[3] = np.nan
    x.divergence[21] = np.nan  # in the observation, which nobody scored
    got = credit_of(PUBLISHED, rollout(), 1.0, x)
    assert (got.segments.num_nonfinite, np.flatnonzero(got.credit.weight > 1).tolist()) == (1, [17, 18, 19])
    x.teacher_entropy[5] = np.inf
    lost = credit_of(PUBLISHED, rollout(), 1.0, x)
    assert (lost.segments.reason, lost.segments.num_nonfinite, lost.segments.spans) == ("nonfinite", 2, ())
    assert (lost.credit.weight == 1).all()
    long, wide = rollout(400, (Turn(0, 400),)), features(400, d17=0.4)
    wide.divergence[100:104] = np.nan
    assert credit_of(PUBLISHED, long, 1.0, wide).segments.num_nonfinite == 4
    wide.divergence[104] = np.nan
    assert credit_of(PUBLISHED, long, 1.0, wide).segments.reason == "nonfinite"


def test_arrays_that_are_not_one_number_for_each_token_are_refused_by_name():
    with pytest.raises(RecordError, match="rollout t1/3: features must have 40 entries"):
        credit_of(PUBLISHED, rollout(), 1.0, features(39))
    with pytest.raises(RecordError, match="rollout t1/3: outside_literals must have 40 entries"):
        credit_of(PUBLISHED, rollout(), 1.0, None, np.ones(41, bool))


@profile(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_a_rollout_s_weights_do_not_depend_on_its_company(seed: int, count: int):
    """Neither on who else is in the batch nor on the order, and sign and bound are those of the advantage."""
    rng = np.random.default_rng(seed)
    batch: list[tuple[Rollout, float, Features, Flags]] = []
    for _ in range(count):
        size = int(rng.integers(16, 90))
        d, h, gap = (rng.lognormal(-2, 1.5, size).astype(np.float32) for _ in range(3))
        cut = int(rng.integers(1, size))
        played = rollout(size, (Turn(0, cut), Turn(cut, size)))
        batch.append((played, float(rng.normal()), Features(d, h, gap), rng.random(size) < 0.9))
    together = [credit_of(options(), *each) for each in batch]
    method = options()
    alone = [credit_of(method, *each) for each in reversed(batch)][::-1]
    for (_, advantage, _, free), one, other in zip(batch, together, alone, strict=True):
        assert one.credit.weight.tobytes() == other.credit.weight.tobytes()
        assert ((one.credit.weight >= 1) & (one.credit.weight <= 2)).all()
        assert (one.credit.weight[~free] == 1).all()
        assert (np.sign(one.credit.token_advantage) == np.sign(advantage)).all()
        assert (np.abs(one.credit.token_advantage) <= 2 * abs(np.float32(advantage))).all()


def test_the_name_alone_is_the_published_rule():
    method: Any = TypeAdapter(MethodSettings).validate_python({"name": "sgcd"})
    assert isinstance(method, SgcdSettings)
    assert (method.divergence, method.k, method.gamma, method.cap, method.floor) == ("reverse_kl", 100, 1.0, 2.0, 1.0)
    assert (method.segments.scale, method.mean_one, method.direction_gate, method.calibrate) == (
        "published",
        *(False, False, False),
    )
    s = method.segments
    assert (s.spike, s.saturation, s.quiet, s.min_divergence, s.spread) == (None, None, None, 0.1, 0.02)
    assert (s.quiet_tokens, s.max_tokens, s.entropy_rise, s.entropy_quantile, s.min_tokens) == (8, 64, 0.3, 0.9, 16)
    assert Sgcd(method).needs == Needs(100, "reverse_kl", can_change_weights=True)
    assert not options(gamma=0).needs.can_change_weights
    assert Grpo().needs is None


@pytest.mark.parametrize(
    "wrong", [{"cap": 1.0}, {"gamma": -0.1}, {"floor": 0.0}, {"floor": 1.1}, {"k": 0}, {"divergence": "kl"}, {"x": 1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        SgcdSettings(name="sgcd", **wrong)
