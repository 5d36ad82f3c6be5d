"""Excess: the divergence under the own reference, less the one under a text that says nothing of the task.

    e_t = max(0, D(p_t || q_t with the reference) - D(p_t || q_t with the other text))
    W_t = low + (high - low) min(1, e_t / saturation) where the student is undecided, low elsewhere

The source is this project: any text moves a policy where it is undecided, and the difference is what this reference
adds. The other text is a neutral one of equal length, or the next group's reference. Defaults: undecided from an
entropy of .1 nat on, weights in [1, 2], the published reverse KL and top 100; a full share at .3 nat is a guess.
"""

import numpy as np

from sgcd.credit.gap_settings import ExcessSettings
from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.methods.two_teachers import weighted_where_undecided
from sgcd.credit_records import OWN_REFERENCE, Signal, Teacher


class Excess(StatelessMethod):
    facts = MethodFacts(
        "difference of two divergences",
        "this project",
        "float64 formula",
        teacher="policy with the reference, and with another text",
    )

    def __init__(self, settings: ExcessSettings) -> None:
        self.settings = settings
        self.other = Teacher(settings.beyond)
        self.needs = Needs(
            100,
            "reverse_kl",
            teachers=(OWN_REFERENCE, self.other),
            requires_reading=settings.require_reading,
            can_change_weights=settings.high > 1,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Without the features of both teachers no token has a share."""
        own, other = inputs.reference_features, inputs.features.get(self.other)
        share = np.zeros(len(inputs.rollout.response))
        if own is not None and other is not None:
            known = np.isfinite(own.divergence) & np.isfinite(other.divergence)
            share[known] = (own.divergence[known] - other.divergence[known]) / self.settings.saturation
        return weighted_where_undecided(inputs, own, share, self.settings)
