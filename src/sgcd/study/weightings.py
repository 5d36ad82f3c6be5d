"""Weights the same rollouts in several ways: the method, its variants, shuffled controls, and the true weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import SegmentSettings, SgcdSettings
from sgcd.credit_records import OWN_REFERENCE, Signal
from sgcd.records import Flags, Floats
from sgcd.study.decision_values import Truth
from sgcd.study.score_groups import ScoredRollout

_ATTENUATING_FLOOR = 0.2
"""Smallest weight of the variants that also attenuate."""
_ORACLE_CAP = 2.0
"""Weight of a decisive token where the truth gives the weights."""
UNDER_OWN, UNDER_NEXT, UNDER_SWAPPED, UNDER_NEUTRAL, OWN_AND_SWAPPED, OWN_AND_NEXT = range(6)
"""The places of a rollout's features: four teachers beside the student, and the own one beside two other teachers."""
"""Numbers of the two references under which each rollout is scored."""


@dataclass(frozen=True, slots=True)
class RolloutWithTruth:
    """One rollout with its scores and the true advantage of its tokens."""

    scored: ScoredRollout
    top_probs: Floats
    """The student's largest probability at each token."""
    truth: Truth

    @property
    def tokens_outside_literals(self) -> Flags:
        return self.truth.counted_mask | ~self.scored.rollout.response_mask


def assign_credits(settings: SgcdSettings, reference: int, samples: Sequence[RolloutWithTruth]) -> list[Signal]:
    """The method's credit of each rollout under reference number `reference`."""
    method = Sgcd(settings)
    return [
        method.assign_credit(
            CreditInputs(
                sample.scored.rollout,
                sample.scored.advantage,
                {OWN_REFERENCE: sample.scored.features_under(reference)},
                sample.tokens_outside_literals,
            )
        )
        for sample in samples
    ]


def with_published_segments(settings: SgcdSettings) -> SgcdSettings:
    """The same method with the paper's segment settings and creditable tokens."""
    published = {"segments": SegmentSettings(), "min_entropy": 0.0, "min_entropy_quantile": None}
    return settings.model_copy(update=published)


def build_weights(base_settings: SgcdSettings, samples: Sequence[RolloutWithTruth]) -> dict[str, list[Floats]]:
    """The weight of each token of each rollout, by name of the weighting.

    "decisive" is a control and not a method: it gives weight zero to all tokens that are not decisive.
    """

    def method_weights(settings: SgcdSettings, reference: int) -> list[Floats]:
        return [result.credit.weight for result in assign_credits(settings, reference, samples)]

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
        "grpo": [np.ones(len(sample.scored.rollout.response), np.float32) for sample in samples],
        **{name: method_weights(settings, UNDER_OWN) for name, settings in variants.items()},
        **{
            name.replace("sgcd", "shuffled"): method_weights(settings, UNDER_NEXT)
            for name, settings in variants.items()
        },
        "oracle": truth_weights(_ORACLE_CAP, 1.0),
        "oracle floor": truth_weights(_ORACLE_CAP, _ATTENUATING_FLOOR),
        "decisive": truth_weights(1.0, 0.0),
    }
