"""OPSD (2601.18734): on-policy self-distillation, the divergence to the initial policy with the reference.

    L = coefficient sum_t JSD(p_t || q_t) / tokens + reward_coefficient L_GRPO

Published: the Jensen-Shannon divergence over the whole vocabulary, a frozen teacher that reads the solution, and no
reward. Here the outcomes are the teacher's top K, the observed token and the tail, and the teacher reads the
reference. With a reward_coefficient of 1 it is the hybrid with GRPO that other papers call by its name.
"""

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.methods.imitate import signal_imitation
from sgcd.credit.signal_settings import OpsdSettings
from sgcd.credit_records import Signal, Teacher

_TEACHER = Teacher("reference", "initial")


class Opsd(StatelessMethod):
    """Returns an imitation of the initial policy, and credit only with a `reward_coefficient`."""

    facts = MethodFacts(
        "divergence, with a gradient",
        "2601.18734",
        "autograd in float64",
        teacher="initial policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: OpsdSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            settings.k, settings.divergence, teachers=(_TEACHER,), imitated=_TEACHER, can_change_weights=False
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No imitation without features."""
        settings = self.settings
        return signal_imitation(inputs, _TEACHER, settings, reward_coefficient=settings.reward_coefficient)
