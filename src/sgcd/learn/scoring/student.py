"""The student's forward pass: log-probabilities of the sampled tokens, and the comparison with each teacher.

With a gradient this is the training pass itself. Without one it is a pass of its own, for a method that must see a
whole step first. Both give the same numbers, to the last bit where they read the same micro-batches. Features never
carry a gradient; an outcome distribution does where a method declares that it imitates the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.credit.divergence import divergence_of, entropy_of, observed_logprob_of
from sgcd.credit_records import Features
from sgcd.errors import RecordError
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.forward import (
    ForwardConfig,
    build_batch,
    forward_hidden_states,
    forward_micro_batches,
    unpack_policy_tokens,
)
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad
from sgcd.learn.scoring.logits.stats import LogitStats, stats_at
from sgcd.learn.scoring.teacher import TeacherOutcomes, topk_observed_tail
from sgcd.records import Floats, Rollout
from sgcd.settings import Divergence

OutcomesByTeacher = Sequence[Sequence[TeacherOutcomes | None]]
"""One list for each teacher, one entry for each rollout."""


@dataclass(frozen=True, slots=True)
class StudentScores:
    """What a forward pass leaves behind without its graph."""

    logprobs: list[Floats]
    entropies: list[Floats]
    """The student's own, over the whole vocabulary."""
    features: list[list[Features | None]]
    """One list for each teacher, with None for rollouts that it did not score."""


@dataclass(frozen=True, slots=True)
class StudentForward:
    """A forward pass over a micro-batch with its graph; tensors have one entry for each token that the policy wrote."""

    logprobs: Tensor
    """log p(y_t), with a gradient."""
    entropy: Tensor
    scores: StudentScores
    comparisons: "list[TeacherComparison]"


def score_student(
    model: Any,
    rollouts: Sequence[Rollout],
    teacher_outcomes: OutcomesByTeacher,
    *,
    divergence: Divergence,
    config: ForwardConfig,
    imitated_index: int | None = None,
) -> StudentForward:
    """One forward pass with a gradient. `imitated_index` is the place of the teacher whose divergence has one too."""
    hidden, observed_ids = forward_hidden_states(model, build_batch(model, rollouts, config))
    comparisons = [TeacherComparison(rollouts, outcomes, observed_ids) for outcomes in teacher_outcomes]
    logprobs, stats = logprobs_with_grad(
        hidden,
        get_head(model),
        observed_ids,
        ids=_query_ids(comparisons),
        temperature=config.temperature,
        logits_bytes=config.logits_bytes,
        grad_ids_index=_index_among_active(comparisons, imitated_index),
    )
    if imitated_index is not None:
        comparisons[imitated_index].keep_student_outcomes(
            logprobs, stats, _index_among_active(comparisons, imitated_index)
        )
    scores = _collect_scores(stats, rollouts, comparisons, divergence)
    return StudentForward(logprobs, stats.entropy, scores, comparisons)


@torch.no_grad()
def score_student_no_grad(
    model: Any,
    rollouts: Sequence[Rollout],
    teacher_outcomes: OutcomesByTeacher,
    *,
    divergence: Divergence,
    config: ForwardConfig,
) -> StudentScores:
    """The same scores without a gradient, `config.micro_batch_tokens` in one forward pass."""
    logprobs: dict[int, Floats] = {}
    entropies: dict[int, Floats] = {}
    features: list[dict[int, Features | None]] = [{} for _ in teacher_outcomes]
    for indices, (hidden, observed_ids) in forward_micro_batches(model, rollouts, config):
        part_rollouts = [rollouts[index] for index in indices]
        comparisons = [
            TeacherComparison(part_rollouts, [outcomes[index] for index in indices], observed_ids)
            for outcomes in teacher_outcomes
        ]
        stats = stats_at(
            hidden,
            get_head(model),
            observed_ids,
            ids=_query_ids(comparisons),
            temperature=config.temperature,
            logits_bytes=config.logits_bytes,
        )
        part_scores = _collect_scores(stats, part_rollouts, comparisons, divergence)
        logprobs |= zip(indices, part_scores.logprobs, strict=True)
        entropies |= zip(indices, part_scores.entropies, strict=True)
        for collected, part_features in zip(features, part_scores.features, strict=True):
            collected |= zip(indices, part_features, strict=True)
    order = range(len(rollouts))
    return StudentScores(
        [logprobs[index] for index in order],
        [entropies[index] for index in order],
        [[collected[index] for index in order] for collected in features],
    )


def _query_ids(comparisons: "Sequence[TeacherComparison]") -> tuple[Tensor, ...]:
    """The ids at which the student's logits are read, for each teacher that scored anything."""
    return tuple(comparison.query_ids for comparison in comparisons if comparison.query_ids is not None)


def _index_among_active(comparisons: "Sequence[TeacherComparison]", index: int | None) -> int | None:
    """A teacher's place among those that scored anything; None where it scored nothing."""
    if index is None or comparisons[index].query_ids is None:
        return None
    return sum(comparison.query_ids is not None for comparison in comparisons[:index])


def _collect_scores(
    stats: LogitStats, rollouts: Sequence[Rollout], comparisons: "Sequence[TeacherComparison]", divergence: Divergence
) -> StudentScores:
    active = [comparison for comparison in comparisons if comparison.query_ids is not None]
    for comparison, (topk_logprobs, tail_logprob) in zip(active, stats.logprobs_at, strict=True):
        comparison.compare(stats, topk_logprobs.detach(), tail_logprob.detach(), divergence)
    return StudentScores(
        unpack_policy_tokens(stats.observed_logprob, rollouts),
        unpack_policy_tokens(stats.entropy, rollouts),
        [comparison.features for comparison in comparisons],
    )


class TeacherComparison:
    """One teacher's scores beside the tokens of one forward pass of the student."""

    def __init__(
        self, rollouts: Sequence[Rollout], teacher_outcomes: Sequence[TeacherOutcomes | None], observed_ids: Tensor
    ) -> None:
        self._rollouts = rollouts
        self._teacher_outcomes = teacher_outcomes
        self._observed_ids = observed_ids
        self.features: list[Features | None] = [None] * len(rollouts)
        self.query_ids: Tensor | None = None
        """[tokens, K]: where the student's logits are read; any where the teacher scored nothing; or None."""
        device = observed_ids.device
        lengths = [rollout.num_policy_tokens for rollout in rollouts]
        scored = np.repeat([outcomes is not None for outcomes in teacher_outcomes], lengths)
        self._scored = torch.from_numpy(scored).to(device)
        self._topk_ids = self._teacher_logprobs = torch.zeros(0, 0, device=device)
        self._student_logprobs: Tensor | None = None
        self._other_logprobs: Tensor | None = None
        """Another teacher's at the same outcomes, where the teacher is compared with it; None: with the student."""
        present = [outcomes for outcomes in teacher_outcomes if outcomes]
        if present:
            columns = zip(*((one.observed_ids, one.topk_ids, one.outcome_logprobs) for one in present), strict=True)
            teacher_ids, topk_ids, self._teacher_logprobs = (torch.cat(tensors).to(device) for tensors in columns)
            other_logprobs = [one.other_logprobs for one in present if one.other_logprobs is not None]
            self._other_logprobs = torch.cat(other_logprobs).to(device) if other_logprobs else None
            _check_same_ids(teacher_ids, observed_ids[self._scored])
            self._topk_ids = topk_ids.long()
            self.query_ids = torch.arange(topk_ids.shape[1], device=device).repeat(len(observed_ids), 1)
            self.query_ids[self._scored] = self._topk_ids

    def compare(self, stats: LogitStats, topk_logprobs: Tensor, tail_logprob: Tensor, divergence: Divergence) -> None:
        """Divergence, entropies and gap of the scored tokens; zero where the policy wrote nothing."""
        q, y = self._teacher_logprobs, self._observed_ids[self._scored]
        p = self._other_logprobs
        if p is None:
            p = self._student_outcomes(topk_logprobs, stats.observed_logprob, tail_logprob)
        gap = observed_logprob_of(q, self._topk_ids, y) - observed_logprob_of(p, self._topk_ids, y)
        scored_rollouts = [
            rollout for rollout, scored in zip(self._rollouts, self._teacher_outcomes, strict=True) if scored
        ]
        columns = (
            unpack_policy_tokens(values, scored_rollouts)
            for values in (divergence_of(p, q, divergence), entropy_of(q), gap, stats.entropy[self._scored])
        )
        features = iter([Features(*arrays) for arrays in zip(*columns, strict=True)])
        self.features = [next(features) if outcomes else None for outcomes in self._teacher_outcomes]

    def keep_student_outcomes(self, logprobs: Tensor, stats: LogitStats, index: int | None) -> None:
        """Keep the student's outcomes with their gradient; `index` is that of this teacher in `stats.logprobs_at`."""
        if index is not None:
            topk_logprobs, tail_logprob = stats.logprobs_at[index]
            self._student_logprobs = self._student_outcomes(topk_logprobs, logprobs, tail_logprob)

    def divergence_with_grad(self, kind: Divergence) -> Tensor | None:
        """D(p_t || q_t) for each token of the pass, zero where the teacher scored nothing. The teacher has no gradient.

        An outcome that is empty is empty on both sides; a log-probability of -10,000 stands for it, whose mass is zero
        and whose gradient is no NaN.
        """
        if self._student_logprobs is None:
            return None
        p, q = (outcomes.clamp(min=-1e4) for outcomes in (self._student_logprobs, self._teacher_logprobs))
        values = divergence_of(p, q.to(p.dtype), kind)
        return torch.zeros(len(self._observed_ids), dtype=p.dtype, device=p.device).masked_scatter(self._scored, values)

    def _student_outcomes(self, topk_logprobs: Tensor, observed_logprob: Tensor, tail_logprob: Tensor) -> Tensor:
        scored = self._scored
        return topk_observed_tail(
            self._topk_ids,
            self._observed_ids[scored],
            topk_logprobs[scored],
            observed_logprob[scored],
            tail_logprob[scored],
        )


def _check_same_ids(teacher_ids: Tensor, student_ids: Tensor) -> None:
    if not torch.equal(teacher_ids, student_ids):
        position = int((teacher_ids != student_ids).nonzero()[0])
        raise RecordError(
            f"scoring: teacher and student must read the same ids, got {int(teacher_ids[position])} and "
            f"{int(student_ids[position])}; a teacher's scores belong to the rollout that it read, and to no other"
        )
