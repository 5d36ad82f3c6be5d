"""GRPO (2402.03300): every token that a rollout wrote carries the rollout's advantage."""

import numpy as np

from sgcd.records import Credit, Features, Rollout, Signal


class Grpo:
    needs_reference = False

    def signal(self, rollout: Rollout, advantage: float, features: Features | None) -> Signal:
        """W_t = 1 for every token, with cap 1: credit that has nowhere to go but to all."""
        return Signal(Credit(advantage=advantage, weight=np.ones(len(rollout.response), np.float32)))
