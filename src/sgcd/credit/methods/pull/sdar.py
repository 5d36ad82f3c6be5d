"""SDAR (2605.15155): sampled tokens become likelier, more where the teacher agrees.

    g_t = 1 / (1 + exp(-sharpness (log q(y_t) - log p(y_t))))
    pull_t = coefficient g_t

Published is a term in the loss, coefficient * mean_t g_t (log q(y_t) - log p(y_t)), with gate and teacher detached. Its
gradient is -coefficient g_t grad log p(y_t): with one update a batch, exactly that of this pull. Defaults are those of
the authors' scripts: coefficient .01, sharpness 5. A sharpness of 0 is GRPO + OPSD as in their repository.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts
from sgcd.credit.methods.pull import GapMethod
from sgcd.credit.segments import Doubles
from sgcd.credit.signal_settings import SdarSettings


class Sdar(GapMethod[SdarSettings]):
    facts = MethodFacts(
        "gate on the log-ratio of the sampled token",
        "2605.15155",
        "compute_sdar_loss of ZJU-REAL/SDAR, by its gradient",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )

    def pull_of(self, gap: Doubles, inputs: CreditInputs) -> Doubles:
        """The gate."""
        return 1 / (1 + np.exp(-np.clip(self.settings.sharpness * gap, -700, 700)))
