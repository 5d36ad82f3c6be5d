"""GRPO (2402.03300): every token that a rollout wrote carries the rollout's advantage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgcd.credit.methods import CreditResult
from sgcd.credit.segments import Segments
from sgcd.records import Credit, Features, Flags, Rollout, Signal


class Grpo:
    needs = None

    def signal(
        self, rollout: Rollout, advantage: float, features: Features | None = None, creditable: Flags | None = None
    ) -> Signal:
        """W_t = 1 for every token, with cap 1: credit that has nowhere to go but to all."""
        return Signal(Credit(advantage=advantage, weight=np.ones(len(rollout.response), np.float32)))

    def assign_credit(
        self, rollout: Rollout, advantage: float, features: Features | None = None, creditable: Flags | None = None
    ) -> CreditResult:
        no_segments = Segments(np.zeros(len(rollout.response), np.float32), (), 0, 0, "no_reference")
        return CreditResult(self.signal(rollout, advantage), no_segments)

    def calibrate(self, batch: Sequence[tuple[Rollout, Features, Flags | None]]) -> None:
        """There is nothing to choose."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
