"""SDPO (2601.20802): self-distillation from a moving average of the policy that reads a successful sibling.

    L = coefficient sum_t JSD(p_t || q_t) / tokens + reward_coefficient L_GRPO

p is the student, q the teacher. The outcomes are the student's top K, the observed token and the tail. A rollout whose
siblings have no success, itself left out, has no teacher and adds nothing. Defaults are the published ones: moving
average with rate .05, K = 100, the symmetric Jensen-Shannon divergence, no reward. Published with several updates a
batch, it also caps an importance ratio at 2; with one update that ratio is one, and it is left out here. Its mean is
over the tokens that have a teacher, here over all of the batch.
"""

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod, gap_teacher
from sgcd.credit.methods.imitate import signal_imitation
from sgcd.credit.signal_settings import SdpoSettings
from sgcd.credit_records import Signal


class Sdpo(StatelessMethod):
    """Returns an imitation of the teacher, and credit only with a `reward_coefficient`."""

    facts = MethodFacts(
        "divergence, with a gradient",
        "2601.20802",
        "autograd in float64; TRL's divergence",
        teacher="moving average with a sibling's success",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: SdpoSettings) -> None:
        self.settings = settings
        self.teacher = gap_teacher(settings)
        self.needs = Needs(
            settings.k,
            settings.divergence,
            teachers=(self.teacher,),
            imitated=self.teacher,
            can_change_weights=False,
            support=settings.support,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No imitation without features."""
        settings = self.settings
        return signal_imitation(inputs, self.teacher, settings, reward_coefficient=settings.reward_coefficient)
