"""The student beside its teachers: what it makes of the same tokens without a reference, and where the two disagree.

With a gradient this is the training pass itself, and its numbers cost nothing; without one it is a pass of its own, for
whoever has to see a whole batch first. The numbers are the same, to the bit where both read the same micro-batches, and
none of them carries a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.credit.divergence import divergence_of, entropy_of, observed_logprob_of
from sgcd.credit.settings import Divergence
from sgcd.errors import RecordError
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.batch import pad_batch, unpack_policy_tokens
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad
from sgcd.learn.scoring.logits.stats import LogitStats, stats_at
from sgcd.learn.scoring.logprobs import forward_hidden_states, forward_micro_batches
from sgcd.learn.scoring.teacher import TeacherTopK, kept_outcomes
from sgcd.records import Features, Floats, Rollout

TopKByTeacher = Sequence[Sequence[TeacherTopK | None]]
"""One list for each teacher, one entry for each rollout."""


@dataclass(frozen=True, slots=True)
class StudentScores:
    """What the student's pass leaves behind: for the ratio, and under each teacher for the method."""

    logprobs: list[Floats]
    features: list[list[Features | None]]
    """One list for each teacher, with None for rollouts that it has no lesson for."""


def score_student(
    model: Any,
    rollouts: Sequence[Rollout],
    teacher_topk: TopKByTeacher,
    temperature: float,
    divergence: Divergence,
    logits_bytes: int = LOGITS_BYTES,
) -> tuple[Tensor, Tensor, StudentScores]:
    """One forward pass: log p(y_t) of every written token with a gradient, the entropy there, and the marks."""
    hidden, observed_ids = forward_hidden_states(model, pad_batch(rollouts))
    comparisons = [TeacherComparison(rollouts, topk, observed_ids) for topk in teacher_topk]
    logprobs, stats = logprobs_with_grad(
        hidden,
        get_head(model),
        observed_ids,
        ids=collect_query_ids(comparisons),
        temperature=temperature,
        logits_bytes=logits_bytes,
    )
    return logprobs, stats.entropy, collect_student_scores(stats, rollouts, comparisons, divergence)


@torch.no_grad()
def score_student_no_grad(
    model: Any,
    rollouts: Sequence[Rollout],
    teacher_topk: TopKByTeacher,
    temperature: float,
    micro_batch_tokens: int,
    divergence: Divergence,
    logits_bytes: int = LOGITS_BYTES,
) -> StudentScores:
    """The marks without a gradient, `tokens` in one forward pass. Log-probabilities are those of `scoring.logps`."""
    logprobs: dict[int, Floats] = {}
    features: list[dict[int, Features | None]] = [{} for _ in teacher_topk]
    for indices, (hidden, observed_ids) in forward_micro_batches(model, rollouts, micro_batch_tokens):
        part_rollouts = [rollouts[index] for index in indices]
        comparisons = [
            TeacherComparison(part_rollouts, [topk[index] for index in indices], observed_ids) for topk in teacher_topk
        ]
        stats = stats_at(
            hidden,
            get_head(model),
            observed_ids,
            ids=collect_query_ids(comparisons),
            temperature=temperature,
            logits_bytes=logits_bytes,
        )
        part_scores = collect_student_scores(stats, part_rollouts, comparisons, divergence)
        logprobs |= zip(indices, part_scores.logprobs, strict=True)
        for collected, part_features in zip(features, part_scores.features, strict=True):
            collected |= zip(indices, part_features, strict=True)
    order = range(len(rollouts))
    return StudentScores(
        [logprobs[index] for index in order], [[collected[index] for index in order] for collected in features]
    )


def collect_query_ids(comparisons: Sequence["TeacherComparison"]) -> tuple[Tensor, ...]:
    """Where the student is to be asked, for each teacher that taught anything."""
    return tuple(comparison.query_ids for comparison in comparisons if comparison.query_ids is not None)


def collect_student_scores(
    stats: LogitStats, rollouts: Sequence[Rollout], comparisons: Sequence["TeacherComparison"], divergence: Divergence
) -> StudentScores:
    """What one forward pass over `rollouts` said, laid beside each teacher's lessons."""
    active = [comparison for comparison in comparisons if comparison.query_ids is not None]
    for comparison, (topk_logprobs, tail_logprob) in zip(active, stats.logprobs_at, strict=True):
        comparison.compare(topk_logprobs, stats.observed_logprob, tail_logprob, divergence)
    return StudentScores(
        unpack_policy_tokens(stats.observed_logprob, rollouts), [comparison.features for comparison in comparisons]
    )


class TeacherComparison:
    """One teacher's lessons beside the rows of one forward pass of the student."""

    def __init__(
        self, rollouts: Sequence[Rollout], teacher_topk: Sequence[TeacherTopK | None], observed_ids: Tensor
    ) -> None:
        self._rollouts = rollouts
        self._teacher_topk = teacher_topk
        self._observed_ids = observed_ids
        self.features: list[Features | None] = [None] * len(rollouts)
        self.query_ids: Tensor | None = None
        """[rows, K]: where the student is to be asked; any ids for rollouts without a lesson. None without any."""
        present = [topk for topk in teacher_topk if topk]
        if not present:
            return
        scored_mask = np.repeat(
            [topk is not None for topk in teacher_topk], [rollout.num_policy_tokens for rollout in rollouts]
        )
        self._scored_mask = torch.from_numpy(scored_mask).to(observed_ids.device)
        teacher_ids, topk_ids, self._teacher_logprobs = (
            torch.cat(tensors).to(observed_ids.device) for tensors in zip(*map(_tensors, present), strict=True)
        )
        self._check_same_ids(teacher_ids, observed_ids[self._scored_mask])
        self._topk_ids = topk_ids.long()
        self.query_ids = torch.arange(topk_ids.shape[1], device=observed_ids.device).repeat(len(observed_ids), 1)
        self.query_ids[self._scored_mask] = self._topk_ids

    def compare(
        self, topk_logprobs: Tensor, observed_logprob: Tensor, tail_logprob: Tensor, divergence: Divergence
    ) -> None:
        """Divergence, entropy and gap of the rows for which there is a lesson; zero where nothing was written."""
        scored, topk_ids, q = self._scored_mask, self._topk_ids, self._teacher_logprobs
        y = self._observed_ids[scored]
        p = kept_outcomes(topk_ids, y, topk_logprobs[scored], observed_logprob[scored], tail_logprob[scored])
        logprob_gap = observed_logprob_of(q, topk_ids, y) - observed_logprob_of(p, topk_ids, y)
        scored_rollouts = [rollout for rollout, topk in zip(self._rollouts, self._teacher_topk, strict=True) if topk]
        columns = (
            unpack_policy_tokens(values, scored_rollouts)
            for values in (divergence_of(p, q, divergence), entropy_of(q), logprob_gap)
        )
        features = iter([Features(*arrays) for arrays in zip(*columns, strict=True)])
        self.features = [next(features) if topk else None for topk in self._teacher_topk]

    def _check_same_ids(self, teacher_ids: Tensor, student_ids: Tensor) -> None:
        if not torch.equal(teacher_ids, student_ids):
            position = int((teacher_ids != student_ids).nonzero()[0])
            raise RecordError(
                f"scoring: teacher and student must be asked about the same ids, got {int(teacher_ids[position])} and "
                f"{int(student_ids[position])}; a lesson belongs to the rollout that it was given for, and to no other"
            )


def _tensors(topk: TeacherTopK) -> tuple[Tensor, Tensor, Tensor]:
    return topk.observed_ids, topk.topk_ids, topk.logprobs
