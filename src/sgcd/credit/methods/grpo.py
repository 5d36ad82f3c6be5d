"""GRPO (2402.03300): every token that a rollout wrote carries the rollout's advantage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgcd.credit.methods import Explained
from sgcd.credit.segments import Segments
from sgcd.records import Credit, Features, Flags, Rollout, Signal


class Grpo:
    needs = None

    def signal(
        self, rollout: Rollout, advantage: float, features: Features | None = None, creditable: Flags | None = None
    ) -> Signal:
        """W_t = 1 for every token, with cap 1: credit that has nowhere to go but to all."""
        return Signal(Credit(advantage=advantage, weight=np.ones(len(rollout.response), np.float32)))

    def explain(
        self, rollout: Rollout, advantage: float, features: Features | None = None, creditable: Flags | None = None
    ) -> Explained:
        nothing = Segments(np.zeros(len(rollout.response), np.float32), (), 0, 0, "no_reference")
        return Explained(self.signal(rollout, advantage), nothing)

    def calibrate(self, batch: Sequence[tuple[Rollout, Features, Flags | None]]) -> None:
        """There is nothing to choose."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
