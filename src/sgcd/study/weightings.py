"""Ways of weighting the same rollouts, side by side: the method, its extensions, their shuffled controls, the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgcd.credit.methods.sgcd import CreditResult, Sgcd
from sgcd.credit.settings import SegmentSettings
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.records import Flags, Floats, Rollout
from sgcd.study.decision_values import Truth
from sgcd.study.token_scores import TokenScores

_ATTENUATING_FLOOR = 0.2
"""Of the weights that also attenuate."""
_ORACLE_CAP = 2.0
"""What a decisive token weighs where the truth gives the weights."""
OWN_REFERENCE, SHUFFLED_REFERENCE = 0, 1
"""Which of the texts that a teacher was shown."""


@dataclass(frozen=True, slots=True)
class RolloutWithTruth:
    """One rollout and all that is known of it."""

    rollout: Rollout
    group_index: int
    """Which siblings it is one of."""
    advantage: float
    token_scores: TokenScores
    truth: Truth

    @property
    def creditable_mask(self) -> Flags:
        return self.truth.counted_mask | ~self.rollout.response_mask


def assign_credits(settings: SgcdSettings, arm: int, samples: Sequence[RolloutWithTruth]) -> list[CreditResult]:
    """What the method says of each rollout when its teacher was shown text number `arm`."""
    method = Sgcd(settings)
    return [
        method.assign_credit(
            sample.rollout, sample.advantage, sample.token_scores.features[arm], sample.creditable_mask
        )
        for sample in samples
    ]


def with_published_segments(settings: SgcdSettings) -> SgcdSettings:
    """The same method with the published rule for segments."""
    return settings.model_copy(update={"segments": SegmentSettings()})


def build_weights(base_settings: SgcdSettings, samples: Sequence[RolloutWithTruth]) -> dict[str, list[Floats]]:
    """A weight for each token of each rollout, under every arm.

    "decisive" is no method, since none may give a weight of zero: it says what is left without all other tokens.
    """

    def method_weights(settings: SgcdSettings, arm: int) -> list[Floats]:
        return [sample.signal.credit.weight for sample in assign_credits(settings, arm, samples)]

    def truth_weights(high: float, low: float) -> list[Floats]:
        return [np.where(sample.truth.decisive_mask, high, low).astype(np.float32) for sample in samples]

    variants = {
        "sgcd": base_settings,
        "sgcd published": with_published_segments(base_settings),
        "sgcd absolute": base_settings.model_copy(
            update={"segments": base_settings.segments.model_copy(update={"scale": "absolute"})}
        ),
        "sgcd floor": base_settings.model_copy(update={"floor": _ATTENUATING_FLOOR}),
    }
    return {
        "grpo": [np.ones(len(sample.rollout.response), np.float32) for sample in samples],
        **{name: method_weights(settings, OWN_REFERENCE) for name, settings in variants.items()},
        **{
            name.replace("sgcd", "shuffled"): method_weights(settings, SHUFFLED_REFERENCE)
            for name, settings in variants.items()
        },
        "oracle": truth_weights(_ORACLE_CAP, 1.0),
        "oracle floor": truth_weights(_ORACLE_CAP, _ATTENUATING_FLOOR),
        "decisive": truth_weights(1.0, 0.0),
    }
