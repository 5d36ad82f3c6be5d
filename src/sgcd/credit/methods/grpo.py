"""GRPO (2402.03300): every token that a rollout wrote carries the rollout's advantage."""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod
from sgcd.credit.settings import GrpoSettings
from sgcd.credit_records import Credit, Signal


class Grpo(StatelessMethod):
    """W_t = 1 for every token."""

    needs = None
    facts = MethodFacts("none: every weight is one", "2402.03300", "TRL's advantages and loss")

    def __init__(self, settings: GrpoSettings | None = None) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        num_tokens = len(inputs.rollout.response)
        credit = Credit(inputs.advantage, np.ones(num_tokens, np.float32))
        return Signal(credit)
