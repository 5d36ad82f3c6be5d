"""Thinking mask: tokens of thinking carry less of the advantage, without a teacher.

    W_t = weight on thinking, 1 on calls and answers

The source is this project: what a floor on the weights gains may be thinking that is attenuated and no credit at all,
and this is the control for it. Default: weight .2, the floor of the rules that it stands beside.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod
from sgcd.credit.settings import ThinkingMaskSettings
from sgcd.credit_records import Credit, Signal
from sgcd.records import TokenKind


class ThinkingMask(StatelessMethod):
    needs = None
    facts = MethodFacts("the kind of a token", "this project, as a control", "float64 formula")

    def __init__(self, settings: ThinkingMaskSettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        is_thinking = inputs.rollout.token_kinds == TokenKind.THINKING
        weight = np.where(is_thinking, self.settings.weight, 1.0).astype(np.float32)
        credit = Credit(inputs.advantage, weight, floor=self.settings.weight)
        return Signal(credit)
