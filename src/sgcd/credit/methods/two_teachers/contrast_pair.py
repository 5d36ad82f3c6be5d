"""Contrast pair: more weight where the own reference and the one with success and failure exchanged part.

    c_t = log q(y_t | own reference) - log q(y_t | exchanged reference)
    W_t = low + (high - low) min(1, |c_t| / saturation) where the student is undecided, low elsewhere

The source is this project. Both texts hold the same sentences, so their words, length and place cancel, and what is
left is what the policy reads of success and failure. Defaults: undecided from an entropy of .1 nat on, weights in
[1, 2]; a full share at 1 nat is a guess.
"""

import numpy as np

from sgcd.credit.gap_settings import ContrastPairSettings
from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.methods.two_teachers import weighted_where_undecided
from sgcd.credit_records import Signal


class ContrastPair(StatelessMethod):
    facts = MethodFacts(
        "log-ratio of two teachers", "this project", "float64 formula", teacher="policy with both references"
    )

    def __init__(self, settings: ContrastPairSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            1,
            "reverse_kl",
            against="swapped",
            requires_reading=settings.require_reading,
            can_change_weights=settings.high > 1,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Without features no token has a share."""
        features, share = inputs.reference_features, np.zeros(len(inputs.rollout.response))
        if features is not None:
            share = np.abs(features.teacher_logprob_gap) / self.settings.saturation
        return weighted_where_undecided(inputs, features, share, self.settings)
