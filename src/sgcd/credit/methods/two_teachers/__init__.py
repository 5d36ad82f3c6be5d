"""What methods share that compare two teachers."""

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.gap_settings import ContrastPairSettings, ContrastSignSettings, TwoTeacherSettings
from sgcd.credit.methods import CreditInputs, Needs, StatelessMethod, weighted_credit
from sgcd.credit_records import Features, Signal
from sgcd.records import Floats

ContrastSettings = TypeVar("ContrastSettings", ContrastPairSettings, ContrastSignSettings)
"""The settings of one method."""


class SwappedContrast(StatelessMethod, Generic[ContrastSettings]):
    """Weights from log q(y_t | own reference) - log q(y_t | exchanged reference)."""

    def __init__(self, settings: ContrastSettings) -> None:
        self.settings: ContrastSettings = settings
        self.needs = Needs(
            1,
            "reverse_kl",
            compare_with="swapped",
            requires_reading=settings.require_reading,
            can_change_weights=settings.high > 1,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Without features no token has a share."""
        features, share = inputs.reference_features, np.zeros(len(inputs.rollout.response))
        if features is not None:
            share = self.contrast_of(features.teacher_logprob_gap, inputs) / self.settings.saturation
        return weighted_where_undecided(inputs, features, share, self.settings)

    def contrast_of(self, gap: Floats, inputs: CreditInputs) -> NDArray[Any]:
        """What earns weight at each token, in nats."""
        raise NotImplementedError


def weighted_where_undecided(
    inputs: CreditInputs, features: Features | None, share: NDArray[Any], settings: TwoTeacherSettings
) -> Signal:
    """Credit by each token's share where the student is undecided; no token has one without features."""
    undecided = features.undecided_mask(settings.min_entropy) if features else np.zeros(len(share), np.bool_)
    return weighted_credit(inputs, np.where(undecided, share, 0.0), settings)
