"""OPID (2606.26790): the log-ratio under a skill of the rollout's own episode, in a small dose, beside the reward.

    pull_t = coefficient (log q(y_t) - log p(y_t))

The formula is that of on-policy distillation; the default is the coefficient of the authors' scripts, .001, without
their optional scaling and clipping, which are off there. Their teacher reads a skill that a model wrote from the
rollout itself, and at few turns one of that turn; here it reads the group's reference, or another context.
"""

from sgcd.credit.methods import MethodFacts
from sgcd.credit.methods.pull import GapMethod
from sgcd.credit.signal_settings import OpidSettings


class Opid(GapMethod[OpidSettings]):
    facts = MethodFacts(
        "log-ratio of the sampled token",
        "2606.26790",
        "compute_teacher_token_advantage of jinyangwu/OPID",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )
