"""SGCD (2606.12634): the advantage is the verifier's; where the teacher disagrees, tokens carry more of it.

The policy, shown a reference that was written from mixed siblings, is the teacher. The divergence between teacher and
student is cut into segments, a segment's saliency becomes a weight between one and the cap, and the weight multiplies
the advantage inside an ordinary GRPO update. No gradient passes through any of it, and gamma = 0 is GRPO.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sgcd.credit.calibration import Calibration, calibrate
from sgcd.credit.methods import Explained, Needs
from sgcd.credit.segments import Segments, segment, turn_numbers
from sgcd.credit.settings import SegmentSettings
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.credit.weights import gate, weigh
from sgcd.records import Credit, Features, Flags, Rollout, Signal, same_length

NONFINITE = 0.01
"""Share of a rollout's tokens that may have a NaN or an infinity; one token may always. Beyond it, none has credit."""


class Sgcd:
    def __init__(self, settings: SgcdSettings) -> None:
        self.settings = settings
        self.calibration: Calibration | None = None
        """The spike chosen on the first batch; None until then, and always where the settings ask for none."""

    @property
    def needs(self) -> Needs:
        told = self.settings
        return Needs(told.k, told.divergence, told.gamma > 0, whole=told.calibrate and self.calibration is None)

    def signal(
        self, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
    ) -> Signal:
        """W_t = clip(1 + gamma s_t, 1, cap) for every token of the rollout (equations 3 and 4)."""
        return self.explain(rollout, advantage, features, creditable).signal

    def explain(
        self, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
    ) -> Explained:
        """The signal, and the segments it comes from. Without features (no reference) every weight is one.

        `creditable` is False on masked literals: they keep weight one and take no part in the rollout's statistics.
        """
        size = len(rollout.response)
        free = np.ones(size, dtype=bool) if creditable is None else creditable
        same_length(f"rollout {rollout.name}", "creditable", free, size)
        if features is None:
            segments = Segments(np.zeros(size, np.float32), (), 0, 0, "no_reference")
        else:
            segments = self._segments(rollout, features, free, self.segmenting)
            if self.settings.direction_gate:
                segments = gate(segments, advantage, features.gap)
        settings = self.settings
        weight = weigh(
            segments.saliency, rollout.mask & free, settings.gamma, settings.cap, settings.floor, settings.mean_one
        )
        clipped = int((settings.gamma * segments.saliency > settings.cap - 1).sum())
        return Explained(Signal(Credit(advantage, weight, settings.cap, settings.floor)), segments, clipped)

    @property
    def segmenting(self) -> SegmentSettings:
        """The segmenter's settings, with the calibrated spike once there is one."""
        return self.calibration.applied(self.settings.segments) if self.calibration else self.settings.segments

    def calibrate(self, batch: Sequence[tuple[Rollout, Features, Flags | None]]) -> None:
        """Choose the spike on the first batch, where the settings ask for it; later calls do nothing."""
        if not self.settings.calibrate or self.calibration or not any(rollout.written for rollout, _, _ in batch):
            return

        def share(settings: SegmentSettings) -> float:
            found = (self._segments(rollout, features, free, settings) for rollout, features, free in batch)
            credited = sum(int((segments.saliency > 0).sum()) for segments in found)
            return credited / sum(rollout.written for rollout, _, _ in batch)

        self.calibration = calibrate(share, self.settings.segments)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the method, as plain JSON."""
        return {"calibration": self.calibration.state() if self.calibration else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From what `state` gave."""
        found = state.get("calibration")
        self.calibration = Calibration(**found) if found else None

    def _segments(
        self, rollout: Rollout, features: Features, creditable: Flags | None, settings: SegmentSettings
    ) -> Segments:
        same_length(f"rollout {rollout.name}", "features", features.divergence, len(rollout.response))
        segments = segment(
            features.divergence, features.entropy, rollout.mask, creditable, turn_numbers(rollout), settings
        )
        if segments.nonfinite > max(1, NONFINITE * rollout.written):
            nothing = np.zeros(len(rollout.response), np.float32)
            return replace(segments, saliency=nothing, spans=(), reason="nonfinite")
        return segments
