"""SOD (2605.07725): on-policy distillation by turns, less where a turn is further from the teacher than the first one.

    d_k = mean_t |log q(y_t) - log p(y_t)|  over the creditable tokens of turn k
    w_1 = 1,   w_k = min((d_1 + 1e-6) / (d_k + 1e-6), 1 + margin)
    pull_t = coefficient w_k (log q(y_t) - log p(y_t))

The published weight is a product of ratios of neighbouring turns, which is this quotient. Defaults are those of the
authors' script: coefficient 1, margin .2. Their teacher is a larger model; here it is a context and a model of the
recipe's. The idea is the opposite of SGCD's: far from the student's own way a teacher is not to be trusted.
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
from sgcd.credit.segments import turn_indices, turn_means
from sgcd.credit.signal_settings import SodSettings

_EPSILON = 1e-6


class Sod(StatelessMethod):
    facts = MethodFacts(
        "log-ratio of the sampled token, weighted by turn",
        "2605.07725",
        "compute_stepwise_opd_weights of YoungZ365/SOD",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: SodSettings) -> None:
        self.settings = settings
        self.teacher = gap_teacher(settings)
        self.needs = Needs(1, "reverse_kl", teachers=(self.teacher,), can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> CreditResult:
        """No pull without features. The first turn is the first with a creditable token."""
        features = inputs.features.get(self.teacher)
        if features is None or not self.settings.coefficient:
            return signal_pull(inputs, None)
        gap = np.where(np.isfinite(features.teacher_logprob_gap), features.teacher_logprob_gap, np.nan)
        distances, counts = turn_means(np.abs(gap), inputs.creditable_tokens, inputs.rollout)
        if not counts.any():
            return signal_pull(inputs, None)
        first = distances[np.argmax(counts > 0)]
        weight = np.minimum((first + _EPSILON) / (distances + _EPSILON), 1 + self.settings.margin)
        by_turn = np.append(weight, 0.0)
        by_turn[np.argmax(counts > 0)] = 1.0
        return signal_pull(inputs, self.settings.coefficient * by_turn[turn_indices(inputs.rollout)] * gap)
