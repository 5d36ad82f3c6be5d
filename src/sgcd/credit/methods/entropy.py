"""Weights from the policy's own entropy, without a teacher: the control that every teacher has to beat.

    H_t = -sum_v p_t(v) log p_t(v)            over the whole vocabulary, at the sampling temperature
    W_t = low + (high - low) min(1, H_t / saturation)

The source is this project. Defaults: [1, 2] like SGCD's weights, saturation 1 nat. Where a policy is sure it decides
nothing, so an AUROC of a divergence against all tokens measures H_t first of all. With `low` below one and
`mean_one` the weights move credit instead of adding it.
"""

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, weighted_credit
from sgcd.credit.settings import EntropySettings
from sgcd.credit_records import Signal


class Entropy(StatelessMethod):
    needs = None
    facts = MethodFacts("the student's entropy", "this project, as a control", "float64 formula")

    def __init__(self, settings: EntropySettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """The training pass has the entropy anyway, so this costs no forward pass."""
        assert inputs.entropy is not None
        return weighted_credit(inputs, inputs.entropy / self.settings.saturation, self.settings)
