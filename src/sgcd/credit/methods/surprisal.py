"""Weights from the surprisal of the sampled tokens, without a teacher: a control, like the entropy.

    W_t = low + (high - low) min(1, -log p_t(y_t) / saturation)

The source is this project. Defaults: [1, 2] like SGCD's weights, saturation 1 nat. The weight depends on the token that
was sampled, and not on its prefix alone: rare tokens move more than common ones at the same place, in successes
and in failures alike.
"""

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, weighted_credit
from sgcd.credit.settings import SurprisalSettings
from sgcd.credit_records import Signal


class Surprisal(StatelessMethod):
    needs = None
    facts = MethodFacts("surprisal of the sampled token", "this project, as a control", "float64 formula")

    def __init__(self, settings: SurprisalSettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """The training pass has the log-probabilities anyway, so this costs no forward pass."""
        assert inputs.logprobs is not None
        return weighted_credit(inputs, -inputs.logprobs / self.settings.saturation, self.settings)
