"""Hindsight (after HCAPO): a turn's return, times how much likelier it is for a teacher that knows what succeeded.

    rho_k  = clip(exp(mean_t (log q(y_t) - log p(y_t))), 1 / max_ratio, max_ratio)   over turn k
    Q_k    = rho_k r
    A_k    = Q_k - mean of Q over all turns of the group; in a success at least 0 (do no harm)
    pull_t = coefficient A_k

From HCAPO (2603.08754), of which the formulas are not public in full, are the ratio of the success-conditioned to the
plain probability of a turn, its clipping, and the mask on successes. Guessed are the teacher (the policy with the
reference), the mean over a turn, the baseline, and all numbers. The baseline needs the whole group before any credit,
for one more forward pass of the student.
"""

from collections.abc import Sequence

import numpy as np

from sgcd.credit.methods import (
    CreditInputs,
    MethodFacts,
    Needs,
    StatelessMethod,
    collect_by_task,
    mean_of,
    signal_pull,
)
from sgcd.credit.segments import Doubles, turn_indices, turn_means
from sgcd.credit.signal_settings import HindsightSettings
from sgcd.credit_records import Signal


class Hindsight(StatelessMethod):
    facts = MethodFacts(
        "log-ratio of a turn, times the reward",
        "after 2603.08754, partly guessed",
        "float64 formula",
        teacher="policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )
    needs_whole_step = True

    def __init__(self, settings: HindsightSettings) -> None:
        self.settings = settings
        self.needs = Needs(1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=False)
        self._baselines: dict[str, float] = {}
        """By task, in this step."""

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        """Measure the baseline of each group."""
        values = collect_by_task(step_inputs, self._turn_values)
        self._baselines = {task: mean_of([*arrays.values()]) for task, arrays in values.items()}

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No pull without features."""
        values = self._turn_values(inputs)
        if values is None or not self.settings.coefficient:
            return signal_pull(inputs, None)
        advantage = values - self._baselines.get(inputs.rollout.task, 0.0)
        if inputs.advantage > 0:
            advantage = np.maximum(advantage, 0.0)
        by_turn = self.settings.coefficient * np.append(advantage, 0.0)
        return signal_pull(inputs, by_turn[turn_indices(inputs.rollout)])

    def _turn_values(self, inputs: CreditInputs) -> Doubles | None:
        """Q of each turn; None without features."""
        features, group = inputs.reference_features, inputs.group
        if features is None or group is None:
            return None
        own = [rollout.sibling for rollout in group.rollouts].index(inputs.rollout.sibling)
        gaps, _ = turn_means(features.teacher_logprob_gap, inputs.creditable_tokens, inputs.rollout)
        limit = np.log(self.settings.max_ratio)
        return np.exp(np.clip(gaps, -limit, limit)) * inputs.group_rewards[own]
