"""Credit held against decisive tokens that are written down: two siblings part at their fourth word, and a stranger."""

from typing import Any

import numpy as np
import pytest

from sgcd.credit.settings import SgcdSettings
from sgcd.credit_records import Features
from sgcd.records import Rollout, Verdict
from sgcd.study.credit_location import measure_credit_location, spike_condition_shares
from sgcd.study.decision_values import Truth
from sgcd.study.score_groups import ScoredRollout
from sgcd.study.weightings import RolloutWithTruth, build_weights, with_published_segments

SIZE, AT = 10, 3
FEW = SgcdSettings.model_validate(
    {"name": "sgcd", "segments": {"min_tokens": 8, "entropy_quantile": 1.0, "quiet_tokens": 1}}
)


def judged(choice: int, group: int, decisive: bool, advantage: float) -> RolloutWithTruth:
    """Ten words; the fourth is `choice`. The teacher disagrees there, and is least sure there."""
    ids, here = np.arange(SIZE, dtype=np.int32), np.arange(SIZE) == AT
    ids[AT] = choice
    true = np.where(here, np.float32(advantage), np.float32(np.nan)).astype(np.float32)
    error = np.where(here, np.float32(0.1 if decisive else 1), np.float32(np.nan)).astype(np.float32)
    ones = np.ones(SIZE, bool)
    quiet, high = np.linspace(0, 0.01, SIZE, dtype=np.float32), np.float32(0.5)
    seen = Features(
        np.where(here, high, quiet), np.where(here, high, quiet), np.where(here, -high, quiet),
        np.where(here, np.float32(0.7), quiet),
    )  # fmt: skip
    rollout = Rollout(
        task=f"t{group}", category="action", sibling=0, seed=0, prompt=ids[:2], reference_position=1, response=ids,
        response_mask=ones,
        token_kinds=np.full(SIZE, 3, np.uint8), sampling_logprobs=np.zeros(SIZE, np.float32),
        turns=(), messages=(), tools=(),
        end_reason="answered", verdict=Verdict(1.0, True),
    )  # fmt: skip
    scored = ScoredRollout(rollout, group, 1.0, np.zeros(SIZE, np.float32), (seen,) * 6)
    return RolloutWithTruth(scored, np.where(here, np.float32(0.5), np.float32(1)), Truth(true, error, ones))


THREE = [judged(50, 0, True, 0.6), judged(51, 0, False, -0.1), judged(50, 1, False, 0.0)]


def auroc(found: Any, question: str, score: str) -> float:
    return found[question][score]["auroc"]["own"]["value"]


def test_a_place_counts_for_every_sibling_that_came_to_it_and_for_no_stranger():
    found = measure_credit_location(THREE, FEW)
    shares = [
        found[question]["divergence"]["share decisive"] for question in ("all", "undecided", "measured", "places")
    ]
    assert shares == [1 / 30, 1 / 3, 1 / 3, 2 / 30]
    assert auroc(found, "all", "divergence") == pytest.approx((27 + 2 / 2) / 29)
    assert auroc(found, "places", "divergence") == pytest.approx((27 + 1 / 2) / 28)


def test_the_published_rule_has_no_credit_for_so_few_tokens_and_is_told_beside():
    found = measure_credit_location(THREE, FEW)
    assert auroc(found, "all", "weight") == pytest.approx(28 / 29)
    assert auroc(found, "all", "weight, published") == 0.5
    arms = build_weights(FEW, THREE)
    assert np.array_equal(arms["sgcd published"][0], np.ones(SIZE))
    assert arms["sgcd"][0][AT] == 2 and arms["sgcd"][0].sum() == SIZE + 1


def test_what_keeps_a_decisive_token_from_credit_is_named():
    met = spike_condition_shares(THREE, FEW)
    assert met and set(met.values()) == {1.0}
    without = spike_condition_shares(THREE, with_published_segments(FEW))
    assert without == {
        "enough tokens": 0, "enough nats": 1, "high": 1, "teacher confident": 0, "all of these": 0, "credited": 0,
    }  # fmt: skip
