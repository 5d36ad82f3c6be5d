"""SOD (2605.07725): on-policy distillation by turns, less where a turn is further from the teacher than the first one.

    d_k = mean_t |log q(y_t) - log p(y_t)|  over the creditable tokens of turn k
    w_1 = 1,   w_k = min((d_1 + 1e-6) / (d_k + 1e-6), 1 + margin)
    pull_t = coefficient w_k (log q(y_t) - log p(y_t))

The published weight is a product of ratios of neighbouring turns, which is this quotient. Defaults are those of the
authors' script: coefficient 1, margin .2. Their teacher is a larger model; here it is a context and a model of the
recipe's. The idea is the opposite of SGCD's: far from the student's own way a teacher is not to be trusted.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts
from sgcd.credit.methods.pull import GapMethod
from sgcd.credit.segments import Doubles, turn_indices, turn_means
from sgcd.credit.signal_settings import SodSettings

_EPSILON = 1e-6


class Sod(GapMethod[SodSettings]):
    facts = MethodFacts(
        "log-ratio of the sampled token, weighted by turn",
        "2605.07725",
        "compute_stepwise_opd_weights of YoungZ365/SOD",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )

    def pull_of(self, gap: Doubles, inputs: CreditInputs) -> Doubles:
        """The gap, weighted by turn. The first turn is the first with a creditable token."""
        distances, counts = turn_means(np.abs(gap), inputs.creditable_tokens, inputs.rollout)
        if not counts.any():
            return np.zeros(len(gap))
        first = int(np.argmax(counts > 0))
        weight = np.minimum((distances[first] + _EPSILON) / (distances + _EPSILON), 1 + self.settings.margin)
        weight[first] = 1.0
        return np.append(weight, 0.0)[turn_indices(inputs.rollout)] * gap
