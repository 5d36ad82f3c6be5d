"""Skill-SD (2604.10674): a divergence to a teacher that reads a skill, on the sampled tokens, as part of the loss.

    l_t = log p(y_t) - log q(y_t),   k3_t = exp(-l_t) - 1 + l_t
    L = L_GRPO + coefficient mean_t rho_t k3_t,   rho_t the policy ratio, with its gradient
    pull_t = coefficient (log q(y_t) - log p(y_t))

Where rho is one, in a batch's first update, the gradient of rho k3 is l_t grad log p(y_t), because exp(-l) cancels: so
the term is on-policy distillation, and exactly this pull. In later updates the ratio is the surrogate's and the pull
stays. The default, .001, is the best one in the paper on AppWorld. The skill there is a model's analysis of finished
rollouts; here it is the reference, or another context.
"""

from sgcd.credit.methods import MethodFacts
from sgcd.credit.methods.pull import GapMethod
from sgcd.credit.signal_settings import SkillSdSettings


class SkillSd(GapMethod[SkillSdSettings]):
    facts = MethodFacts(
        "log-ratio of the sampled token",
        "2604.10674",
        "compute_sdl_loss of ZJU-REAL/SDAR, by its gradient",
        teacher="any context, any model",
        keeps_sign=False,
        reads_direction=True,
    )
