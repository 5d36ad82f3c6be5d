"""Direction gate: tokens that the teacher does not move the way of the advantage carry less of it.

    W_t = 1 where A (log q(y_t) - log p(y_t)) >= 0, floor elsewhere

The source is this project, as the plainest rule that reads the signs of advantage and teacher together: it keeps every
sign and still selects what the teacher prefers, even when verdicts are dealt by chance (`control: permuted`). The
centred gate takes that part out. Default: floor .2.
"""

import numpy as np

from sgcd.credit.gap_settings import DirectionGateSettings
from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit_records import Credit, Signal


class DirectionGate(StatelessMethod):
    facts = MethodFacts(
        "signs of the log-ratio and of the advantage",
        "this project, as a control",
        "float64 formula",
        teacher="policy with the reference",
        reads_direction=True,
    )

    def __init__(self, settings: DirectionGateSettings) -> None:
        self.settings = settings
        self.needs = Needs(1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Weights are one without features, and where the gap is no number."""
        weight, features = np.ones(len(inputs.rollout.response), np.float32), inputs.reference_features
        if features is not None:
            is_opposed = np.nan_to_num(features.teacher_logprob_gap) * np.sign(inputs.advantage) < 0
            weight[inputs.creditable_tokens & is_opposed] = self.settings.floor
        return Signal(Credit(inputs.advantage, weight, floor=self.settings.floor))
