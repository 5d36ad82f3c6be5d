"""SGCD (2606.12634): the advantage is the verifier's; where the teacher disagrees, tokens carry more of it.

The policy, shown a reference that was written from mixed siblings, is the teacher. The divergence between teacher and
student is cut into segments, a segment's saliency becomes a weight between one and the cap, and the weight multiplies
the advantage inside an ordinary GRPO update. No gradient passes through any of it, and gamma = 0 is GRPO.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sgcd.credit.methods import CreditInputs, MethodFacts, Needs, gap_teacher
from sgcd.credit.segments import Calibration, calibrate_spike, segment, turn_indices
from sgcd.credit.settings import SegmentSettings, SgcdSettings
from sgcd.credit.weights import drop_disagreeing_segments, weigh
from sgcd.credit_records import OWN_REFERENCE, Credit, Features, Segments, Signal
from sgcd.errors import MethodFault
from sgcd.records import Flags, Rollout, check_length

_MAX_NONFINITE_SHARE = 0.01
"""Share of a rollout's tokens that may have a NaN or an infinity; one token may always. Beyond it, none has credit."""


class Sgcd:
    facts = MethodFacts(
        "segments of the divergence",
        "2606.12634",
        "float64 formula",
        teacher="policy with the reference",
    )

    def __init__(self, settings: SgcdSettings) -> None:
        self.settings = settings
        self.calibration: Calibration | None = None
        """The spike chosen on the first batch; None until then, and always where the settings ask for none."""
        self._min_entropy = settings.min_entropy
        """Least entropy of the student at a token with credit, in this step."""
        self.teacher = gap_teacher(settings)
        if settings.compare_with != "student" and self.teacher != OWN_REFERENCE:
            raise MethodFault(
                f"method.compare_with: {settings.compare_with} compares what the policy reads of a reference with what "
                "it reads of another; it only goes with method.context=reference and method.teacher=current"
            )
        self.needs = Needs(
            settings.k,
            settings.divergence,
            teachers=(self.teacher,),
            compare_with=settings.compare_with,
            requires_reading=settings.require_reading,
            can_change_weights=settings.gamma > 0,
        )

    @property
    def needs_whole_step(self) -> bool:
        first_batch = self.settings.calibrate and self.calibration is None
        return first_batch or self.settings.min_entropy_quantile is not None

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """W_t = clip(1 + gamma s_t, 1, cap) for every token of the rollout (equations 3 and 4).

        Without features (no reference) every weight is one. Masked literals keep weight one and take no part in the
        rollout's statistics. Tokens at which the student is not undecided keep weight one.
        """
        settings, rollout, features = self.settings, inputs.rollout, inputs.features.get(self.teacher)
        num_tokens = len(rollout.response)
        outside_literals = (
            np.ones(num_tokens, dtype=bool) if inputs.outside_literals is None else inputs.outside_literals
        )
        check_length(f"rollout {rollout.name}", "outside_literals", outside_literals, num_tokens)
        may_have_credit = outside_literals
        if features is None:
            segments = Segments(np.zeros(num_tokens, np.float32), (), 0, 0, "no_reference")
        else:
            segments = self._find_segments(rollout, features, outside_literals, self.segment_settings)
            may_have_credit = outside_literals & features.undecided_mask(self._min_entropy)
            if settings.direction_gate:
                segments = drop_disagreeing_segments(segments, inputs.advantage, features.teacher_logprob_gap)
        weight = weigh(
            segments.saliency,
            rollout.response_mask & may_have_credit,
            gamma=settings.gamma,
            cap=settings.cap,
            floor=settings.floor,
            mean_one=settings.mean_one,
        )
        num_clipped = int((settings.gamma * segments.saliency > settings.cap - 1).sum())
        credit = Credit(inputs.advantage, weight, settings.cap, settings.floor)
        return Signal(credit, segments=segments, num_clipped=num_clipped)

    @property
    def segment_settings(self) -> SegmentSettings:
        """The segmenter's settings, with the calibrated spike once there is one."""
        return self.calibration.apply_to(self.settings.segments) if self.calibration else self.settings.segments

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        """Find this step's least entropy, and choose the spike on the first batch, where the settings ask for it."""
        scored = [(inputs, features) for inputs in step_inputs if (features := inputs.features.get(self.teacher))]
        self._find_min_entropy(scored)
        num_tokens = sum(inputs.rollout.num_policy_tokens for inputs, _ in scored)
        if not self.settings.calibrate or self.calibration or not num_tokens:
            return

        def credited_share(settings: SegmentSettings) -> float:
            credited = 0
            for inputs, features in scored:
                segments = self._find_segments(inputs.rollout, features, inputs.outside_literals, settings)
                credited += int((segments.saliency > 0).sum())
            return credited / num_tokens

        self.calibration = calibrate_spike(credited_share, self.settings.segments)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the method, as plain JSON."""
        return {"calibration": self.calibration.to_json() if self.calibration else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        saved = state.get("calibration")
        self.calibration = Calibration(**saved) if saved else None

    def _find_min_entropy(self, scored: Sequence[tuple[CreditInputs, Features]]) -> None:
        """The quantile of the student's entropy over the step's tokens, where the settings name one."""
        quantile, least = self.settings.min_entropy_quantile, self.settings.min_entropy
        entropies = [
            features.student_entropy[inputs.rollout.response_mask]
            for inputs, features in scored
            if features.student_entropy is not None
        ]
        values = np.concatenate([np.zeros(0, np.float32), *entropies])
        finite = values[np.isfinite(values)]
        if quantile is not None and finite.size:
            self._min_entropy = max(least, float(np.quantile(finite, quantile, method="lower")))

    def _find_segments(
        self, rollout: Rollout, features: Features, outside_literals: Flags | None, settings: SegmentSettings
    ) -> Segments:
        check_length(f"rollout {rollout.name}", "features", features.divergence, len(rollout.response))
        segments = segment(
            features.divergence,
            features.teacher_entropy,
            rollout.response_mask,
            outside_literals=outside_literals,
            undecided=features.undecided_mask(self._min_entropy),
            turns=turn_indices(rollout),
            settings=settings,
        )
        if segments.num_nonfinite > max(1, _MAX_NONFINITE_SHARE * rollout.num_policy_tokens):
            zeros = np.zeros(len(rollout.response), np.float32)
            return replace(segments, saliency=zeros, spans=(), reason="nonfinite")
        return segments
