"""SCOPE (2604.10688): failures imitate a teacher, successes become likelier, each by how sure teacher or student is.

    success: pull_t = coefficient n softmax_j(-mean_t log p(y_t) / temperature)_k   over the n successes of a group
    failure: L_t = coefficient n softmax_j(mean_t log q(y_t) / temperature)_k D(p_t || q_t)   over its n failures

A success is a rollout with a positive advantage, a failure one with a negative. So a success that the student found
unlikely counts more, and a failure that the teacher finds likely. The pull of a success is the gradient of its
likelihood. Published are both paths, both weights, temperature 1, and no advantage over siblings; the released code has
a top K of 16, and its script weighs successes the other way round, so this follows the paper. There the teacher is a
larger model, and each path is a mean over its own tokens; here it is the policy with the reference, and both are over
all tokens. The weights need the whole group before any credit, for one more forward pass of the student.
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
from sgcd.credit.methods.imitate import signal_imitation
from sgcd.credit.signal_settings import ScopeSettings
from sgcd.credit_records import OWN_REFERENCE, Signal


class Scope(StatelessMethod):
    facts = MethodFacts(
        "divergence, with a gradient, in failures; likelihood in successes",
        "2604.10688",
        "_compute_scope_dual_path_weights of machine981/SCOPE; autograd in float64",
        teacher="policy with the reference",
        keeps_sign=False,
        reads_direction=True,
    )
    needs_whole_step = True

    def __init__(self, settings: ScopeSettings) -> None:
        self.settings = settings
        imitated = OWN_REFERENCE if settings.coefficient > 0 else None
        self.needs = Needs(settings.k, settings.divergence, imitated=imitated, can_change_weights=False)
        self._weights: dict[str, dict[int, float]] = {}
        """By task and sibling, in this step."""

    def observe_step(self, step_inputs: Sequence[CreditInputs]) -> None:
        """Find the weight of each rollout on its path."""
        self._weights = {}
        for sign in (1, -1):
            scores = collect_by_task(
                [inputs for inputs in step_inputs if np.sign(inputs.advantage) == sign], _path_score
            )
            for task, by_sibling in scores.items():
                self._weights.setdefault(task, {}).update(_softmax(by_sibling, self.settings.temperature))

    def assign_credit(self, inputs: CreditInputs) -> Signal:
        """Credit alone where a rollout has no path: a failure without features, or an advantage of zero."""
        settings, rollout = self.settings, inputs.rollout
        weight = self._weights.get(rollout.task, {}).get(rollout.sibling, 0.0)
        if inputs.advantage <= 0:
            reward_coefficient = settings.reward_coefficient
            return signal_imitation(
                inputs, OWN_REFERENCE, settings, reward_coefficient=reward_coefficient, weight=weight
            )
        pull = np.full(len(rollout.response), settings.coefficient * weight) if settings.coefficient else None
        return signal_pull(inputs, pull, settings.reward_coefficient)


def _path_score(inputs: CreditInputs) -> float | None:
    """Mean log-probability of the tokens: of a success by the student, negative; of a failure by the teacher."""
    features, is_success = inputs.reference_features, inputs.advantage > 0
    if inputs.logprobs is None or not (is_success or features):
        return None
    gap = np.zeros(len(inputs.logprobs)) if is_success or features is None else features.teacher_logprob_gap
    known = inputs.creditable_tokens & np.isfinite(inputs.logprobs) & np.isfinite(gap)
    if not known.any():
        return None
    mean = float((inputs.logprobs[known].astype(np.float64) + gap[known]).mean())
    return -mean if is_success else mean


def _softmax(scores: Mapping[int, float], temperature: float) -> dict[int, float]:
    """Weights of mean one."""
    values = np.array([*scores.values()]) / temperature
    shares = np.exp(values - values.max())
    return dict(zip(scores, (len(values) * shares / shares.sum()).tolist(), strict=True))
