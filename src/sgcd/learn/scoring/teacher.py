"""The policy as its own teacher: it reads a reference first, and what it then makes of the very same tokens is kept.

This one forward pass is all that a reference costs: the teacher comes first and leaves its likeliest ids and their
log-probabilities, and the student is asked at those ids while its logits are there anyway (student.py). Both go through
the same products and the same statistics, so that equal contexts differ by exactly nothing. No gradient passes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgcd.contrast.insert import check_teacher_alignment
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.scoring.logits.stats import topk_stats
from sgcd.learn.scoring.logprobs import forward_micro_batches
from sgcd.records import Rollout, TokenIds


@dataclass(frozen=True, slots=True)
class TeacherTopK:
    """What the teacher says where a rollout was written, token by token: 8 bytes for each of K ids."""

    observed_ids: Tensor
    """The ids that were written; the student's have to be the same."""
    topk_ids: Tensor
    """[written, K]: the teacher's likeliest, ties to the lower id."""
    logprobs: Tensor
    """[written, K + 2]: log-probabilities of these, of the observed id, and of all others together."""


@torch.no_grad()
def score_teacher(
    model: Any,
    rollouts: Sequence[Rollout],
    teacher_input_ids: Sequence[TokenIds],
    temperature: float,
    micro_batch_tokens: int,
    k: int,
    logits_bytes: int = LOGITS_BYTES,
) -> list[TeacherTopK]:
    """One forward pass over `rows`: the rollouts as the teacher reads them, with a reference in each prompt."""
    teacher_rollouts = [
        with_teacher_prompt(rollout, input_ids) for rollout, input_ids in zip(rollouts, teacher_input_ids, strict=True)
    ]
    results: dict[int, TeacherTopK] = {}
    for indices, (hidden, observed) in forward_micro_batches(model, teacher_rollouts, micro_batch_tokens):
        topk = topk_stats(hidden, get_head(model), observed, k=k, temperature=temperature, logits_bytes=logits_bytes)
        outcome_logprobs = kept_outcomes(topk.ids, observed, topk.logprobs, topk.observed_logprob, topk.tail_logprob)
        lengths = [teacher_rollouts[index].num_policy_tokens for index in indices]
        columns = zip(
            *(tensor.cpu().split(lengths) for tensor in (observed, topk.ids.int(), outcome_logprobs)), strict=True
        )
        results |= {index: TeacherTopK(*tensors) for index, tensors in zip(indices, columns, strict=True)}
    return [results[index] for index in range(len(rollouts))]


def kept_outcomes(
    topk_ids: Tensor, observed_ids: Tensor, topk_logprobs: Tensor, observed_logprob: Tensor, tail_logprob: Tensor
) -> Tensor:
    """The K + 2 outcomes; the observed id's slot is empty where `ids` holds it already."""
    observed_slot = observed_logprob.masked_fill((topk_ids == observed_ids[:, None]).any(-1), float("-inf"))
    return torch.cat([topk_logprobs, observed_slot[:, None], tail_logprob[:, None]], dim=1)


def with_teacher_prompt(rollout: Rollout, input_ids: TokenIds) -> Rollout:
    """The same response after the teacher's prompt; refused unless the row differs by an insertion alone."""
    check_teacher_alignment(rollout, input_ids, max(0, len(input_ids) - len(rollout.prompt) - len(rollout.response)))
    return replace(rollout, prompt=input_ids[: len(input_ids) - len(rollout.response)])
