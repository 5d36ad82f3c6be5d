"""AgentOPSD (2608.05987): turns weigh by how much they revise the belief that the rollout succeeds.

    delta_k = sum_t (log q(y_t) - log p(y_t))   over the creditable tokens of turn k
    logit V_k = logit prior + delta_1 + ... + delta_k,   V clipped to [1e-6, 1 - 1e-6]
    z_k = (V_k - V_{k-1} - mean) / (std + 1e-6)   over the turns of the rollout
    W_k = (1 - strength) + strength clip(1 + band sign(A) z_k, 1 - band, 1 + band)

Defaults are those of the authors' scripts: strength and prior 1/2, band .2, by turns, with the sign. There the teacher
has a skill in its prompt; here it has the reference.
"""

import numpy as np

from sgcd.credit.gap_settings import AgentOpsdSettings
from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.segments import turn_indices, turn_means
from sgcd.credit_records import Credit, Signal

_EPSILON = 1e-6


class AgentOpsd(StatelessMethod):
    facts = MethodFacts(
        "revision of a belief by turn, signed by the advantage",
        "2608.05987",
        "compute_opsd_turn_advantage of ZethWang/AgentOPSD",
        teacher="policy with the reference",
        reads_direction=True,
    )

    def __init__(self, settings: AgentOpsdSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=settings.strength > 0
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Weights are one without features. A turn without a creditable token revises nothing and takes no part."""
        band, strength, features = self.settings.band, self.settings.strength, inputs.reference_features
        weight = np.ones(len(inputs.rollout.response), np.float32)
        if features is not None:
            means, counts = turn_means(features.teacher_logprob_gap, inputs.creditable_tokens, inputs.rollout)
            logits = np.log(self.settings.prior / (1 - self.settings.prior)) + np.cumsum(means * counts)
            beliefs = np.clip(1 / (1 + np.exp(-np.clip(logits, -700, 700))), _EPSILON, 1 - _EPSILON)
            revisions = np.diff(beliefs, prepend=self.settings.prior)
            known = revisions[counts > 0]
            if known.size:
                z = (revisions - known.mean()) / (known.std() + _EPSILON)
                by_turn = np.clip(1 + band * np.sign(inputs.advantage) * z, 1 - band, 1 + band)
                by_token = np.append((1 - strength) + strength * by_turn, 1.0)[turn_indices(inputs.rollout)]
                weight = np.where(inputs.creditable_tokens, by_token, 1.0).astype(np.float32)
        credit = Credit(inputs.advantage, weight, cap=1 + band, floor=1 - band)
        return Signal(credit)
