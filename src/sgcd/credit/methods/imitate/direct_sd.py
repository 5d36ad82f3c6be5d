"""Direct self-distillation: the divergence that SGCD only reads is put into the loss, with a gradient.

L = L_GRPO + coefficient * sum_t D(p_t || q_t) / tokens, q being the policy with the credit reference in its prompt and
without a gradient. It is the ablation of 2606.12634 in which the teacher moves the policy; the coefficient there is not
public, so the default here is a guess.
"""

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod
from sgcd.credit.methods.imitate import signal_imitation
from sgcd.credit.signal_settings import DirectSdSettings
from sgcd.credit_records import OWN_REFERENCE, Signal


class DirectSd(StatelessMethod):
    """Returns credit with weight one, and an imitation of the teacher."""

    facts = MethodFacts(
        "divergence, with a gradient",
        "2606.12634, as an ablation",
        "autograd in float64",
        teacher="policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )

    def __init__(self, settings: DirectSdSettings) -> None:
        self.settings = settings
        imitated = OWN_REFERENCE if settings.coefficient > 0 else None
        self.needs = Needs(settings.k, settings.divergence, imitated=imitated, can_change_weights=False)

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        return signal_imitation(inputs, OWN_REFERENCE, self.settings)
