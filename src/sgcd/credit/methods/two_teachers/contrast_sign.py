"""Contrast with a sign: more weight where own rather than exchanged reference moves a token as the advantage does.

    c_t = log q(y_t | own reference) - log q(y_t | exchanged reference)
    W_t = low + (high - low) clip(sign(A) c_t / saturation, 0, 1) where the student is undecided, low elsewhere

The source is this project. It is the contrast pair, read with the verdict: in a success what the own reference makes
likelier, in a failure what it makes less likely. So it selects what the teacher prefers, and `control: permuted` is the
control to run. Defaults: undecided from an entropy of .1 nat on, weights in [1, 2]; a full share at 1 nat is a guess.
"""

import numpy as np

from sgcd.credit.gap_settings import ContrastSignSettings
from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.methods.two_teachers import weighted_where_undecided
from sgcd.credit_records import Signal


class ContrastSign(StatelessMethod):
    facts = MethodFacts(
        "log-ratio of two teachers, signed by the advantage",
        "this project",
        "float64 formula",
        teacher="policy with both references",
        reads_direction=True,
    )

    def __init__(self, settings: ContrastSignSettings) -> None:
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
            gap = features.teacher_logprob_gap
            signed = np.sign(inputs.advantage) * np.where(np.isfinite(gap), gap, 0)
            share = signed / self.settings.saturation
        return weighted_where_undecided(inputs, features, share, self.settings)
