"""Scores groups under several references: one teacher pass per reference, then one student pass for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgcd.credit.methods import Needs
from sgcd.credit_records import Features
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.forward import ForwardConfig, forward_micro_batches, unpack_policy_tokens
from sgcd.learn.scoring.logits.stats import topk_stats
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher import TeacherOutcomes, add_other_logprobs, score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import surrogate_advantages
from sgcd.records import Floats, Group, Rollout, TokenIds

LAB_FORWARD = ForwardConfig(temperature=1.0, micro_batch_tokens=16384)
"""For the lab's policy."""


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How groups are scored; the defaults are the lab's."""

    needs: Needs
    """Top-k and divergence, as the method needs them."""
    surrogate: SurrogateSettings = field(default_factory=SurrogateSettings)
    """Baseline, scale and overlong shaping of the advantages."""
    max_tokens: int = 1
    """Most tokens of a response, for overlong shaping."""
    forward: ForwardConfig = field(default_factory=lambda: LAB_FORWARD)


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """One rollout of a group, its advantage over its siblings, and its scores under each reference."""

    rollout: Rollout
    group_index: int
    advantage: float
    logprobs: Floats
    """The student's log-probability of each sampled token; zero where the mask is 0."""
    features: tuple[Features | None, ...]
    """One entry per reference; None where the rollout has no teacher input."""

    def features_under(self, reference: int) -> Features:
        """The features under reference number `reference`, which must have a teacher input for this rollout."""
        features = self.features[reference]
        if features is None:
            raise ValueError(f"rollout {self.rollout.name} has no teacher input for reference {reference}")
        return features


def score_groups_under_references(
    model: Any,
    groups: Sequence[Group],
    inputs_by_reference: Sequence[Sequence[TokenIds | None]],
    options: ScoringOptions,
    pairs: Sequence[tuple[Sequence[TokenIds], Sequence[TokenIds]]] = (),
) -> list[ScoredRollout]:
    """All rollouts of `groups`, in order. No gradient is computed.

    `inputs_by_reference` has one list per reference, with the teacher's input ids of each rollout, or None. `pairs` has
    the inputs of two teachers that are compared; their features come after those of the references.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    group_indices = [index for index, group in enumerate(groups) for _ in group.rollouts]

    def score(input_ids: Sequence[TokenIds | None]) -> list[TeacherOutcomes | None]:
        return score_teacher(model, _teacher_inputs(rollouts, input_ids), k=options.needs.k, config=options.forward)

    outcomes_by_reference = [score(input_ids) for input_ids in inputs_by_reference]
    outcomes_by_reference += [
        add_other_logprobs(model, score(own), _teacher_inputs(rollouts, other), config=options.forward)
        for own, other in pairs
    ]
    student_scores = score_student_no_grad(
        model,
        rollouts,
        outcomes_by_reference,
        divergence=options.needs.divergence,
        config=options.forward,
    )
    advantages = [
        float(advantage)
        for group in groups
        for advantage in surrogate_advantages(group, options.surrogate, options.max_tokens)
    ]
    features = zip(*student_scores.features, strict=True) if outcomes_by_reference else [()] * len(rollouts)
    columns = zip(rollouts, group_indices, advantages, student_scores.logprobs, features, strict=True)
    return [ScoredRollout(*column) for column in columns]


def _teacher_inputs(rollouts: Sequence[Rollout], input_ids: Sequence[TokenIds | None]) -> list[TeacherInput]:
    return [
        TeacherInput(rollout, ids, np.ones(len(rollout.response), np.bool_))
        for rollout, ids in zip(rollouts, input_ids, strict=True)
    ]


def score_top_probs(model: Any, rollouts: Sequence[Rollout]) -> list[Floats]:
    """The student's largest probability at each sampled token; zero where the mask is 0."""
    import torch

    probs_by_index: dict[int, Floats] = {}
    with torch.no_grad():
        for indices, (hidden_states, observed) in forward_micro_batches(model, rollouts, LAB_FORWARD):
            largest = topk_stats(hidden_states, get_head(model), observed, k=1).logprobs[:, 0].exp()
            probs_by_index |= zip(
                indices, unpack_policy_tokens(largest, [rollouts[index] for index in indices]), strict=True
            )
    return [probs_by_index[index] for index in range(len(rollouts))]
