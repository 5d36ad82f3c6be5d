"""The calibrated spike: the smallest candidate that keeps credit localised, chosen once, recorded as plain JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.scoring import credit_of
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.segments import Calibration, calibrate_spike, segment
from sgcd.credit.settings import SegmentSettings
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.credit_records import OWN_REFERENCE, Features
from sgcd.records import Rollout, Turn, Verdict


@pytest.mark.parametrize(
    ("shares", "spike", "share"),
    [
        ((0.15, 0.1, 0.1, 0.1), 3.0, 0.15),
        ((0.19, 0.14, 0.11, 0.09), 4.0, 0.14),
        ((0.3, 0.2, 0.16, 0.15), 6.0, 0.15),
        ((0.3, 0.3, 0.3, 0.3), 6.0, 0.3),  # none is localised: the largest
    ],
)
def test_the_smallest_that_credits_at_most_fifteen_percent(shares: tuple[float, ...], spike: float, share: float):
    tried: list[SegmentSettings] = []

    def credited(settings: SegmentSettings) -> float:
        tried.append(settings)
        return shares[len(tried) - 1]

    assert calibrate_spike(credited, SegmentSettings()) == Calibration(spike, share)
    assert [s.spike for s in tried] == [3.0, 4.0, 5.0, 6.0][: len(tried)]
    assert all(s.spike is not None and s.saturation == 2 * s.spike for s in tried)
    assert tried[-1].spike == spike


def test_the_absolute_scale_is_calibrated_in_nats():
    assert calibrate_spike(lambda s: 0.0, SegmentSettings(scale="absolute")).spike == 0.3


def rollout(size: int, sibling: int = 0) -> Rollout:
    return Rollout(
        task="t",
        category="action",
        sibling=sibling,
        seed=0,
        prompt=np.zeros(1, np.int32),
        reference_position=0,
        response=np.zeros(size, np.int32),
        response_mask=np.ones(size, bool),
        token_kinds=np.full(size, 2, np.uint8),
        sampling_logprobs=np.zeros(size, np.float32),
        turns=(Turn(0, size),),
        messages=(),
        tools=(),
        end_reason="answered",
        verdict=Verdict(1.0, True),
    )


def heavy(seed: int, size: int = 2000) -> Features:
    rng = np.random.default_rng(seed)
    d, h = rng.lognormal(-2, 1.8, size), np.abs(rng.normal(1, 0.5, size))
    return Features(d.astype(np.float32), h.astype(np.float32), np.zeros(size, np.float32))


def inputs(rollout: Rollout, features: Features) -> CreditInputs:
    return CreditInputs(rollout, 1.0, {OWN_REFERENCE: features})


def parts(one: CreditInputs) -> tuple[Rollout, Features]:
    assert one.reference_features is not None
    return one.rollout, one.reference_features


def parts_with(one: CreditInputs, advantage: float) -> tuple[Rollout, float, Features]:
    rollout, features = parts(one)
    return rollout, advantage, features


def test_shares_on_log_normal_divergences():
    """Of the order that the rule was made for: about a sixth at three deviations, a tenth at five."""
    shares = []
    for spike in (3.0, 4.0, 5.0, 6.0):
        settings = SegmentSettings(spike=spike)
        found = [
            segment(f.divergence, f.teacher_entropy, np.ones(2000, bool), settings=settings)
            for f in map(heavy, range(8))
        ]
        shares.append(sum((s.saliency > 0).sum() for s in found) / 16000)
    assert shares == pytest.approx([0.17, 0.13, 0.11, 0.09], abs=0.02)


@pytest.mark.parametrize(("quantile", "least"), [(0.5, 0.5), (0.9, 0.9), (0.05, 0.1)])
def test_a_quantile_of_the_steps_entropy_raises_the_least_one(quantile: float, least: float):
    entropy = np.linspace(0, 1, 101, dtype=np.float32)
    method = Sgcd(SgcdSettings(name="sgcd", min_entropy_quantile=quantile, floor=0.2))
    assert method.needs_whole_step
    scored = replace(heavy(0, 101), student_entropy=entropy)
    for _ in range(2):
        method.observe_step([inputs(rollout(101), replace(scored, student_entropy=entropy))])
        weight = credit_of(method, rollout(101), 1.0, scored).credit.weight
        assert entropy[weight != 1].min() == pytest.approx(least)
    assert method.state_dict() == {"calibration": None}


def test_one_nan_does_not_switch_the_quantile_off():
    entropy = np.linspace(0, 1, 101, dtype=np.float32)
    entropy[3] = np.nan
    method = Sgcd(SgcdSettings(name="sgcd", min_entropy_quantile=0.9, floor=0.2))
    scored = replace(heavy(0, 101), student_entropy=entropy)
    method.observe_step([inputs(rollout(101), scored)])
    weight = credit_of(method, rollout(101), 1.0, scored).credit.weight
    assert entropy[weight != 1].min() == pytest.approx(0.9)


def test_the_method_calibrates_once_and_keeps_it_through_a_checkpoint():
    method = Sgcd(SgcdSettings(name="sgcd", calibrate=True))
    batch = [inputs(rollout(2000, i), heavy(i)) for i in range(4)]
    plain = [segment(f.divergence, f.teacher_entropy, r.response_mask) for r, f in map(parts, batch)]
    assert sum((s.saliency > 0).sum() for s in plain) / 8000 > 0.15  # three deviations are too few here

    method.observe_step(batch)
    chosen = method.calibration
    assert chosen is not None
    assert (chosen.spike > 3, chosen.share <= 0.15) == (True, True)
    weights = [credit_of(method, r, 1.0, f).credit.weight for r, f in map(parts, batch)]
    assert sum((w > 1).sum() for w in weights) / 8000 == pytest.approx(chosen.share)

    method.observe_step([inputs(rollout(50), heavy(9, 50))])
    assert method.calibration == chosen
    again = Sgcd(SgcdSettings(name="sgcd", calibrate=True))
    again.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert again.calibration == chosen
    assert credit_of(again, *parts_with(batch[0], 1.0)).credit.weight.tobytes() == weights[0].tobytes()


def test_off_by_default_and_nothing_to_learn_from_an_empty_batch():
    method = Sgcd(SgcdSettings(name="sgcd"))
    method.observe_step([inputs(rollout(2000), heavy(0))])
    assert method.calibration is None
    method.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert method.calibration is None
    asked = Sgcd(SgcdSettings(name="sgcd", calibrate=True))
    asked.observe_step([])
    asked.observe_step([inputs(rollout(0), heavy(0, 0))])
    assert asked.calibration is None
