"""RLSD (2604.03128): the teacher's log-ratio of each token, in the direction of the advantage, as its weight.

    w_t = clip(exp(sign(A) (log q(y_t) - log p(y_t))), 1 - clip, 1 + clip)
    W_t = (1 - strength) + strength w_t,    strength falls by 1 / decay_steps a step

Defaults are published: clip .2, strength .5, 50 steps. There the teacher has the answer in its prompt; here it has the
reference. Direction from the reward, magnitude from the teacher: no sign flips, but a token gains where the teacher
moves it the way of the advantage, and so the rule still selects what the teacher prefers.
"""

import numpy as np

from sgcd.credit.gap_settings import RlsdSettings
from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit_records import Credit, Signal


class Rlsd(StatelessMethod):
    facts = MethodFacts(
        "log-ratio of the sampled token, signed by the advantage",
        "2604.03128",
        "compute_rlsd_token_advantage of ZJU-REAL/SDAR",
        teacher="policy with the reference",
        reads_direction=True,
    )

    def __init__(self, settings: RlsdSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=settings.strength > 0
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Weights are one without features, and where the gap is no number."""
        clip, features = self.settings.clip, inputs.reference_features
        weight = np.ones(len(inputs.rollout.response))
        if features is not None:
            selected = inputs.creditable_tokens & np.isfinite(features.teacher_logprob_gap)
            gap = np.sign(inputs.advantage) * features.teacher_logprob_gap[selected].astype(np.float64)
            ratio = np.clip(np.exp(np.clip(gap, -20, 20)), 1 - clip, 1 + clip)
            strength = self._strength(inputs.step)
            weight[selected] = (1 - strength) + strength * ratio
        credit = Credit(inputs.advantage, weight.astype(np.float32), cap=1 + clip, floor=1 - clip)
        return Signal(credit)

    def _strength(self, step: int) -> float:
        steps = self.settings.decay_steps
        return self.settings.strength * (1.0 if steps is None else max(0.0, 1 - step / steps))
