"""SGCD by turns: a turn's weight follows from the divergence of all its tokens together.

    D_k = sum of d_t over the creditable tokens of turn k
    W_k = low + (high - low) D_k / max_j D_j, then divided by the mean weight of the rollout's creditable tokens

The divergence is SGCD's (2606.12634), the sum over a turn and the weights are this project's. Defaults: .2 to 1, mean
one. A sum is steadier than a spike, and one weight a turn leaves the tokens of a call together.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, StatelessMethod, weighted_credit
from sgcd.credit.segments import turn_indices
from sgcd.credit.settings import TurnSgcdSettings
from sgcd.credit_records import Signal


class TurnSgcd(StatelessMethod):
    facts = MethodFacts(
        "divergence, summed over a turn", "2606.12634, by turns", "float64 formula", teacher="policy with the reference"
    )

    def __init__(self, settings: TurnSgcdSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            settings.k,
            settings.divergence,
            requires_reading=settings.require_reading,
            can_change_weights=settings.low < settings.high,
        )

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Every weight is one without features, and in a rollout without any divergence."""
        num_tokens, features = len(inputs.rollout.response), inputs.reference_features
        divergence = np.zeros(num_tokens)
        if features is not None:
            divergence[inputs.creditable_tokens] = features.divergence[inputs.creditable_tokens]
        turns = turn_indices(inputs.rollout)
        sums = np.bincount(turns + 1, np.nan_to_num(divergence, posinf=0, neginf=0), minlength=1)
        if not sums.any():
            return weighted_credit(
                inputs, np.ones(num_tokens), self.settings.model_copy(update={"low": 1.0, "high": 1.0})
            )
        return weighted_credit(inputs, sums[turns + 1] / sums.max(), self.settings)
