"""SGCD (2606.12634): the advantage is the verifier's; where the teacher disagrees, tokens carry more of it.

The policy, shown a reference that was written from mixed siblings, is the teacher. The divergence between teacher and
student is cut into segments, a segment's saliency becomes a weight between one and the cap, and the weight multiplies
the advantage inside an ordinary GRPO update. No gradient passes through any of it, and gamma = 0 is GRPO.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sgcd.credit.methods import CreditResult, Needs
from sgcd.credit.segments import Calibration, Segments, calibrate, segment, turn_indices
from sgcd.credit.settings import SegmentSettings
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.credit.weights import drop_disagreeing_segments, weigh
from sgcd.records import Credit, Features, Flags, Rollout, Signal, check_length

_MAX_NONFINITE_SHARE = 0.01
"""Share of a rollout's tokens that may have a NaN or an infinity; one token may always. Beyond it, none has credit."""


class Sgcd:
    def __init__(self, settings: SgcdSettings) -> None:
        self.settings = settings
        self.calibration: Calibration | None = None
        """The spike chosen on the first batch; None until then, and always where the settings ask for none."""

    @property
    def needs(self) -> Needs:
        settings = self.settings
        return Needs(
            settings.k,
            settings.divergence,
            settings.gamma > 0,
            whole_step=settings.calibrate and self.calibration is None,
        )

    def signal(
        self, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
    ) -> Signal:
        """W_t = clip(1 + gamma s_t, 1, cap) for every token of the rollout (equations 3 and 4)."""
        return self.assign_credit(rollout, advantage, features, creditable).signal

    def assign_credit(
        self, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
    ) -> CreditResult:
        """The signal, and the segments it comes from. Without features (no reference) every weight is one.

        `creditable` is False on masked literals: they keep weight one and take no part in the rollout's statistics.
        """
        size = len(rollout.response)
        is_creditable = np.ones(size, dtype=bool) if creditable is None else creditable
        check_length(f"rollout {rollout.name}", "creditable", is_creditable, size)
        if features is None:
            segments = Segments(np.zeros(size, np.float32), (), 0, 0, "no_reference")
        else:
            segments = self._segments(rollout, features, is_creditable, self.segment_settings)
            if self.settings.direction_gate:
                segments = drop_disagreeing_segments(segments, advantage, features.teacher_logprob_gap)
        settings = self.settings
        weight = weigh(
            segments.saliency,
            rollout.response_mask & is_creditable,
            gamma=settings.gamma,
            cap=settings.cap,
            floor=settings.floor,
            mean_one=settings.mean_one,
        )
        clipped = int((settings.gamma * segments.saliency > settings.cap - 1).sum())
        return CreditResult(Signal(Credit(advantage, weight, settings.cap, settings.floor)), segments, clipped)

    @property
    def segment_settings(self) -> SegmentSettings:
        """The segmenter's settings, with the calibrated spike once there is one."""
        return self.calibration.apply_to(self.settings.segments) if self.calibration else self.settings.segments

    def calibrate(self, batch: Sequence[tuple[Rollout, Features, Flags | None]]) -> None:
        """Choose the spike on the first batch, where the settings ask for it; later calls do nothing."""
        if (
            not self.settings.calibrate
            or self.calibration
            or not any(rollout.num_policy_tokens for rollout, _, _ in batch)
        ):
            return

        def credited_share(settings: SegmentSettings) -> float:
            results = (
                self._segments(rollout, features, creditable, settings) for rollout, features, creditable in batch
            )
            credited = sum(int((segments.saliency > 0).sum()) for segments in results)
            return credited / sum(rollout.num_policy_tokens for rollout, _, _ in batch)

        self.calibration = calibrate(credited_share, self.settings.segments)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the method, as plain JSON."""
        return {"calibration": self.calibration.to_json() if self.calibration else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From what `state` gave."""
        saved = state.get("calibration")
        self.calibration = Calibration(**saved) if saved else None

    def _segments(
        self, rollout: Rollout, features: Features, creditable: Flags | None, settings: SegmentSettings
    ) -> Segments:
        check_length(f"rollout {rollout.name}", "features", features.divergence, len(rollout.response))
        segments = segment(
            features.divergence,
            features.entropy,
            rollout.response_mask,
            creditable=creditable,
            turns=turn_indices(rollout),
            settings=settings,
        )
        if segments.num_nonfinite > max(1, _MAX_NONFINITE_SHARE * rollout.num_policy_tokens):
            zeros = np.zeros(len(rollout.response), np.float32)
            return replace(segments, saliency=zeros, spans=(), reason="nonfinite")
        return segments
