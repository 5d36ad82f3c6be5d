"""GRSD (2607.28076): a turn's mean log-ratio, in the direction of the advantage and by the group's scale, as weight.

    q_k = sign(A) mean_t (log q(y_t) - log p(y_t))  over the creditable tokens of turn k
    e_k = exp(clip(q_k, -20, 20)) - 1
    v_k = clip(e_k / (mean |e| over the turns of the group + 1e-6), -clip, clip)
    W_k = max(.1, 1 + strength v_k)

Defaults are those of the authors' scripts: strength .5, clip .2. The scale needs the whole group before any credit, for
one more forward pass of the student. The published guideline is written by the policy; here it is the reference.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.gap_settings import GrsdSettings
from sgcd.credit.methods import (
    CreditInputs,
    MethodFacts,
    Needs,
    StatelessMethod,
    collect_by_task,
    mean_of,
)
from sgcd.credit.segments import Doubles, turn_indices, turn_means
from sgcd.credit_records import Credit, Signal

_LEAST_WEIGHT = 0.1


class Grsd(StatelessMethod):
    facts = MethodFacts(
        "log-ratio of a turn, signed by the advantage",
        "2607.28076",
        "compute_grsd_turn_advantage of BinbZheng1/GRSD",
        teacher="policy with the reference",
        reads_direction=True,
    )
    needs_whole_step = True

    def __init__(self, settings: GrsdSettings) -> None:
        self.settings = settings
        self.needs = Needs(
            1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=settings.strength > 0
        )
        self._scales: dict[str, float] = {}
        """By task, in this step."""

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        """Measure the scale of each group."""
        sizes = collect_by_task(step_inputs, _turn_sizes)
        self._scales = {task: mean_of([*values.values()]) for task, values in sizes.items()}

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Weights are one without features, and on tokens that are not creditable."""
        clip, strength = self.settings.clip, self.settings.strength
        values, _ = _turn_values(inputs)
        scaled = np.clip(values / (self._scales.get(inputs.rollout.task, 0.0) + 1e-6), -clip, clip)
        by_turn = np.append(np.maximum(_LEAST_WEIGHT, 1 + strength * scaled), 1.0)
        weight = np.where(inputs.creditable_tokens, by_turn[turn_indices(inputs.rollout)], 1.0).astype(np.float32)
        floor = max(_LEAST_WEIGHT, 1 - strength * clip)
        credit = Credit(inputs.advantage, weight, cap=1 + strength * clip, floor=floor)
        return Signal(credit)


def _turn_sizes(inputs: CreditInputs) -> Doubles:
    """|e| of each turn with a creditable token."""
    values, counts = _turn_values(inputs)
    return np.abs(values[counts > 0])


def _turn_values(inputs: CreditInputs) -> tuple[Doubles, NDArray[np.int64]]:
    """e of each turn, 0 without features, and the number of tokens that it was made from."""
    if inputs.reference_features is None:
        return np.zeros(len(inputs.rollout.turns)), np.zeros(len(inputs.rollout.turns), np.int64)
    gap = inputs.reference_features.teacher_logprob_gap
    means, counts = turn_means(gap, inputs.creditable_tokens, inputs.rollout)
    return np.expm1(np.clip(np.sign(inputs.advantage) * means, -20, 20)), counts
