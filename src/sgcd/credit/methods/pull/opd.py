"""On-policy distillation: the sampled token's log-ratio between teacher and student is added to the advantage.

A_t = reward_coefficient * A + coefficient * (log q(y_t) - log p(y_t)), with no gradient through the ratio: the policy
gradient of the reverse KL, token by token and with discount zero (Thinking Machines, "On-Policy Distillation", 2025;
their coefficient is 1 and they use no reward). The teacher is the policy as the run began, or the policy itself with a
credit reference in its prompt; that is a choice of this implementation, since theirs is a larger model.
"""

from sgcd.credit.methods import MethodFacts
from sgcd.credit.methods.pull import GapMethod
from sgcd.credit.signal_settings import OpdSettings


class Opd(GapMethod[OpdSettings]):
    facts = MethodFacts(
        "log-ratio of the sampled token",
        "Thinking Machines, 2025",
        "autograd in float64",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: OpdSettings) -> None:
        super().__init__(settings, settings.k)
        self.reward_coefficient = settings.reward_coefficient
