"""SDAR (2605.15155): sampled tokens become likelier, more where the teacher agrees.

    g_t = 1 / (1 + exp(-sharpness (log q(y_t) - log p(y_t))))
    pull_t = coefficient g_t

Published is a term in the loss, coefficient * mean_t g_t (log q(y_t) - log p(y_t)), with gate and teacher detached. Its
gradient is -coefficient g_t grad log p(y_t): with one update a batch, exactly that of this pull. Defaults are those of
the authors' scripts: coefficient .01, sharpness 5. A sharpness of 0 is GRPO + OPSD as in their repository.
"""

import numpy as np

from sgcd.credit.methods import (
    CreditInputs,
    CreditResult,
    MethodFacts,
    Needs,
    StatelessMethod,
    gap_teacher,
    signal_pull,
)
from sgcd.credit.signal_settings import SdarSettings


class Sdar(StatelessMethod):
    facts = MethodFacts(
        "gate on the log-ratio of the sampled token",
        "2605.15155",
        "compute_sdar_loss of ZJU-REAL/SDAR, by its gradient",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: SdarSettings) -> None:
        self.settings = settings
        self.teacher = gap_teacher(settings)
        self.needs = Needs(1, "reverse_kl", teachers=(self.teacher,), can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> CreditResult:
        """No pull without features."""
        features = inputs.features.get(self.teacher)
        if features is None or not self.settings.coefficient:
            return signal_pull(inputs, None)
        slope = np.clip(self.settings.sharpness * features.teacher_logprob_gap.astype(np.float64), -700, 700)
        return signal_pull(inputs, self.settings.coefficient / (1 + np.exp(-slope)))
