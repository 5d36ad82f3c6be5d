"""On-policy distillation: the sampled token's log-ratio between teacher and student is added to the advantage.

A_t = reward_coefficient * A + coefficient * (log q(y_t) - log p(y_t)), with no gradient through the ratio: the policy
gradient of the reverse KL, token by token and with discount zero (Thinking Machines, "On-Policy Distillation", 2025;
their coefficient is 1 and they use no reward). The teacher is the policy as the run began, or the policy itself with a
credit reference in its prompt; that is a choice of this implementation, since theirs is a larger model.
"""

import numpy as np

from sgcd.credit.methods import (
    CreditInputs,
    CreditResult,
    MethodFacts,
    Needs,
    StatelessMethod,
    gap_teacher,
    no_segments,
)
from sgcd.credit.signal_settings import OpdSettings
from sgcd.credit_records import Credit, Signal


class Opd(StatelessMethod):
    """Returns a pull, and credit with weight one."""

    facts = MethodFacts(
        "log-ratio of the sampled token",
        "Thinking Machines, 2025",
        "autograd in float64",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: OpdSettings) -> None:
        self.settings = settings
        self.teacher = gap_teacher(settings)
        self.needs = Needs(settings.k, "reverse_kl", teachers=(self.teacher,), can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> CreditResult:
        settings, num_tokens = self.settings, len(inputs.rollout.response)
        credit = Credit(settings.reward_coefficient * inputs.advantage, np.ones(num_tokens, np.float32))
        features = inputs.features.get(self.teacher)
        pull = None
        if features is not None:
            gap = np.where(inputs.creditable_tokens, features.teacher_logprob_gap, 0)
            pull = (settings.coefficient * np.nan_to_num(gap, posinf=0, neginf=0)).astype(np.float32)
        return CreditResult(Signal(credit, pull=pull), no_segments(num_tokens))
