"""Centred gate: a gate on the direction of the teacher, less what it would have given with a permuted verdict.

    W(A) = 1 where A (log q(y_t) - log p(y_t)) >= 0, floor elsewhere
    c_t  = W(A_k) A_k - mean over siblings j of W(A_j) A_j,   all with this rollout's gap at this token
    pull_t = c_t - A_k, so that the token's advantage is c_t

A gate on the signs of advantage and gap selects what the teacher prefers even when verdicts are dealt at random. The
mean is what it would have given then, so that c_t has no such part: its expectation is zero where the advantage does
not depend on the rollout. It may have another sign than A_k. The source is this project. Default: floor .2.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod, signal_pull
from sgcd.credit.signal_settings import CentredGateSettings
from sgcd.credit_records import Signal


class CentredGate(StatelessMethod):
    facts = MethodFacts(
        "sign of the log-ratio and of all siblings' advantages",
        "this project",
        "float64 formula; a sum over permutations that is zero",
        teacher="policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: CentredGateSettings) -> None:
        self.settings = settings
        self.needs = Needs(1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No pull without features."""
        features, floor = inputs.reference_features, self.settings.floor
        if features is None or floor == 1:
            return signal_pull(inputs, None)
        gap = features.teacher_logprob_gap.astype(np.float64)
        dealt = np.array([inputs.advantage, *inputs.group_advantages])
        gated = np.where(dealt * np.sign(gap)[:, None] >= 0, 1.0, floor) * dealt
        pull = gated[:, 0] - gated[:, 1:].mean(axis=1) - inputs.advantage
        return signal_pull(inputs, np.where(np.isfinite(gap), pull, 0.0))
