"""Counterfactual: a pull to the teacher where siblings that it prefers did better, and away from it elsewhere.

    u_j = clip(exp(mean_t (log q(y_t) - log p(y_t))), 1 / max_ratio, max_ratio)   over a turn of sibling j
    C_s = sum_j u_j A_j / sum_j u_j - mean_j A_j   over the turns of all siblings that start from state s
    pull_t = coefficient C_s (log q(y_t) - log p(y_t))   in a turn that starts from s

After CRAFT (2606.29476), of which only the abstract is public, so this bears another name. From it are the siblings'
importance by the teacher's log-ratio, the self-normalised change of the advantage if what the teacher prefers came more
often, and that it gives a signed number for each token. Guessed are the step (turns from the same state, which is the
text of what the environment said last), the mean over a turn, the clipping, the product with the log-ratio, and all
defaults. Its controller of two coefficients and its KL by the sign of the credit are not here. The importance needs the
whole group before any credit, for one more forward pass of the student.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sgcd.credit.methods import (
    CreditInputs,
    MethodFacts,
    Needs,
    StatelessMethod,
    collect_by_task,
    signal_pull,
)
from sgcd.credit.methods.pull.gigpo import turn_states
from sgcd.credit.segments import Doubles, turn_indices, turn_means
from sgcd.credit.signal_settings import CounterfactualSettings
from sgcd.credit_records import Signal


class Counterfactual(StatelessMethod):
    facts = MethodFacts(
        "siblings' advantages, weighted by the log-ratio of a turn",
        "after 2606.29476, mostly guessed",
        "float64 formula",
        teacher="policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )
    needs_whole_step = True

    def __init__(self, settings: CounterfactualSettings) -> None:
        self.settings = settings
        self.needs = Needs(1, "reverse_kl", requires_reading=settings.require_reading, can_change_weights=False)
        self._importance: Mapping[str, Mapping[int, Doubles]] = {}
        """Of each turn, by task and sibling, in this step."""

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        """Measure the importance of every turn."""
        self._importance = collect_by_task(step_inputs, self._turn_importance)

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """No pull without features, nor in a turn whose state was seen once."""
        features, group = inputs.reference_features, inputs.group
        importance = self._importance.get(inputs.rollout.task, {})
        if features is None or group is None or not self.settings.coefficient:
            return signal_pull(inputs, None)
        by_state: dict[str, list[tuple[float, float]]] = {}
        for rollout, advantage in zip(group.rollouts, inputs.group_advantages, strict=True):
            turns = importance.get(rollout.sibling, ())
            for state, weight in zip(turn_states(rollout), turns, strict=False):
                by_state.setdefault(state, []).append((float(weight), advantage))
        changes = [_advantage_change(by_state.get(state, [])) for state in turn_states(inputs.rollout)]
        by_turn = self.settings.coefficient * np.append(changes, 0.0)
        gap = np.where(np.isfinite(features.teacher_logprob_gap), features.teacher_logprob_gap, 0.0)
        return signal_pull(inputs, by_turn[turn_indices(inputs.rollout)] * gap)

    def _turn_importance(self, inputs: CreditInputs) -> Doubles | None:
        """u of each turn; None without features."""
        if inputs.reference_features is None:
            return None
        gap = inputs.reference_features.teacher_logprob_gap
        means, _ = turn_means(gap, inputs.creditable_tokens, inputs.rollout)
        limit = np.log(self.settings.max_ratio)
        return np.exp(np.clip(means, -limit, limit))


def _advantage_change(turns: Sequence[tuple[float, float]]) -> float:
    """C of the turns of one state, from their importance and advantage; 0 of none."""
    if not turns:
        return 0.0
    weight, advantage = np.array(turns).T
    return float(weight @ advantage / weight.sum() - advantage.mean())
