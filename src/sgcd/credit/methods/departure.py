"""Departure: a segment from a spike of the divergence to where the policy is undecided again (after GEAR, 2605.11853).

    a token with d_t >= spike opens a segment; a higher one inside it opens the next
    it ends before the next token with H_t >= end_entropy, H the policy's own entropy, and with the turn
    s_t = min(1, d_first / saturation) in a segment, min(1, d_t / saturation) outside
    W_t = low + (high - low) s_t

Of GEAR only the abstract is public, so this bears another name. From it are the spike that opens, the entropy that
ends, the weight of the place of departure, and single tokens elsewhere; the numbers and the turn's end are guesses.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod, weighted_credit
from sgcd.credit.segments import turn_indices
from sgcd.credit.settings import DepartureSettings
from sgcd.credit_records import Signal


class Departure(StatelessMethod):
    facts = MethodFacts(
        "divergence and the student's entropy",
        "after 2605.11853, mostly guessed",
        "float64 formula",
        teacher="policy with the reference",
    )

    def __init__(self, settings: DepartureSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            settings.k,
            settings.divergence,
            requires_reading=settings.require_reading,
            can_change_weights=settings.low < settings.high,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Without features no token has a share."""
        settings, features = self.settings, inputs.reference_features
        share = np.zeros(len(inputs.rollout.response))
        if features is None or inputs.entropy is None:
            return weighted_credit(inputs, share, settings)
        divergence = np.where(inputs.creditable_tokens, np.nan_to_num(features.divergence, posinf=0, neginf=0), 0)
        turns, first, height = turn_indices(inputs.rollout), -1, 0.0
        for t in np.flatnonzero(turns >= 0):
            is_over = first >= 0 and (turns[t] != turns[first] or inputs.entropy[t] >= settings.end_entropy)
            if is_over:
                first, height = -1, 0.0
            if divergence[t] >= settings.spike and divergence[t] > height:
                first, height = int(t), float(divergence[t])
            share[t] = height if first >= 0 else divergence[t]
        return weighted_credit(inputs, share / settings.saturation, settings)
