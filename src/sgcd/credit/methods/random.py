"""Random weights: the control for a method whose weights have the same share and size.

    W_t = low + (high - low) u_t b_t,   u_t uniform on [0, 1),   b_t = 1 with probability `share`, else 0

The source is this project. Defaults: a tenth of the tokens, weights in [1, 2]. To control for a recorded run, set
`share` to its `credited / creditable` and `high` so that the mean weight agrees (both in metrics.jsonl). The draw
follows from the rollout's seed, so a resumed run draws the same.
"""

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, StatelessMethod, weighted_credit
from sgcd.credit.settings import RandomSettings
from sgcd.credit_records import Signal
from sgcd.seeds import derive_seed


class Random(StatelessMethod):
    needs = None
    facts = MethodFacts("a seed", "this project, as a control", "float64 formula")

    def __init__(self, settings: RandomSettings) -> None:
        self.settings = settings

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        generator = np.random.default_rng(derive_seed("random weights", inputs.rollout.seed))
        size, drawn = generator.random((2, len(inputs.rollout.response)))
        return weighted_credit(inputs, np.where(drawn < self.settings.share, size, 0.0), self.settings)
