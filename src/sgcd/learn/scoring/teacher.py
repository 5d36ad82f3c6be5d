"""Runs the teacher on prompt, reference and response, and returns its top-K log-probabilities.

A reference costs this one forward pass. The teacher comes first and leaves its likeliest ids and their
log-probabilities, and the student's logits are read at those ids in its own pass (student.py). Both go through
the same products and the same statistics, so that equal contexts differ by exactly nothing. No gradient passes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgcd.contrast.insert import check_teacher_alignment
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.forward import ForwardConfig, forward_micro_batches
from sgcd.learn.scoring.logits.stats import stats_at, topk_stats
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.records import Rollout


@dataclass(frozen=True, slots=True)
class TeacherOutcomes:
    """A teacher's log-probabilities of each token's K + 2 outcomes: its likeliest ids, the observed one, all others."""

    observed_ids: Tensor
    """The ids that were written; the student's have to be the same."""
    topk_ids: Tensor
    """[written, K]: the teacher's likeliest, ties to the lower id."""
    outcome_logprobs: Tensor
    """[written, K + 2]: log-probabilities of these, of the observed id, and of all others together."""
    other_logprobs: Tensor | None = None
    """The same outcomes under another teacher, where this one is compared with it and not with the student."""


@torch.no_grad()
def score_teacher(
    model: Any, inputs: Sequence[TeacherInput], *, k: int, config: ForwardConfig
) -> list[TeacherOutcomes | None]:
    """Forward passes over the teacher's inputs; results in the order of the inputs, None for a rollout without one."""
    present = [index for index, teacher_input in enumerate(inputs) if teacher_input.input_ids is not None]
    rollouts = [with_teacher_prompt(inputs[index]) for index in present]
    results: list[TeacherOutcomes | None] = [None] * len(inputs)
    for indices, (hidden, observed) in forward_micro_batches(model, rollouts, config):
        topk = topk_stats(
            hidden, get_head(model), observed, k=k, temperature=config.temperature, logits_bytes=config.logits_bytes
        )
        outcome_logprobs = topk_observed_tail(
            topk.ids, observed, topk.logprobs, topk.observed_logprob, topk.tail_logprob
        )
        lengths = [rollouts[index].num_policy_tokens for index in indices]
        columns = zip(
            *(tensor.cpu().split(lengths) for tensor in (observed, topk.ids.int(), outcome_logprobs)), strict=True
        )
        for index, tensors in zip(indices, columns, strict=True):
            results[present[index]] = TeacherOutcomes(*tensors)
    return results


def add_other_logprobs(
    model: Any,
    outcomes: Sequence[TeacherOutcomes | None],
    other_inputs: Sequence[TeacherInput],
    *,
    config: ForwardConfig,
) -> list[TeacherOutcomes | None]:
    """The first teacher's scores, with another teacher's log-probabilities at the same outcomes."""
    other_logprobs = score_outcomes(model, outcomes, other_inputs, config=config)
    return [own and replace(own, other_logprobs=other) for own, other in zip(outcomes, other_logprobs, strict=True)]


def score_at_topk(
    model: Any, outcomes: Sequence[TeacherOutcomes | None], inputs: Sequence[TeacherInput], *, config: ForwardConfig
) -> list[TeacherOutcomes | None]:
    """A teacher's log-probabilities at the likeliest ids of another model, such as the student."""
    scored = score_outcomes(model, outcomes, inputs, config=config)
    return [
        replace(own, outcome_logprobs=logprobs) if own is not None and logprobs is not None else None
        for own, logprobs in zip(outcomes, scored, strict=True)
    ]


@torch.no_grad()
def score_outcomes(
    model: Any,
    outcomes: Sequence[TeacherOutcomes | None],
    other_inputs: Sequence[TeacherInput],
    *,
    config: ForwardConfig,
) -> list[Tensor | None]:
    """Forward passes over another teacher's inputs: its log-probabilities [written, K + 2] at given outcomes."""
    present = [(index, own) for index, own in enumerate(outcomes) if own is not None]
    rollouts = [with_teacher_prompt(other_inputs[index]) for index, _ in present]
    results: list[Tensor | None] = [None] * len(outcomes)
    for indices, (hidden, observed) in forward_micro_batches(model, rollouts, config):
        owns = [present[index][1] for index in indices]
        ids = torch.cat([own.topk_ids for own in owns]).to(hidden.device).long()
        stats = stats_at(
            hidden,
            get_head(model),
            observed,
            ids=(ids,),
            temperature=config.temperature,
            logits_bytes=config.logits_bytes,
        )
        topk_logprobs, tail_logprob = stats.logprobs_at[0]
        outcome_logprobs = topk_observed_tail(ids, observed, topk_logprobs, stats.observed_logprob, tail_logprob)
        parts = outcome_logprobs.cpu().split([len(own.observed_ids) for own in owns])
        for index, part in zip(indices, parts, strict=True):
            results[present[index][0]] = part
    return results


def topk_observed_tail(
    topk_ids: Tensor, observed_ids: Tensor, topk_logprobs: Tensor, observed_logprob: Tensor, tail_logprob: Tensor
) -> Tensor:
    """The K + 2 outcomes; the observed id's slot is empty where `topk_ids` holds it already."""
    observed_slot = observed_logprob.masked_fill((topk_ids == observed_ids[:, None]).any(-1), float("-inf"))
    return torch.cat([topk_logprobs, observed_slot[:, None], tail_logprob[:, None]], dim=1)


def with_teacher_prompt(teacher_input: TeacherInput) -> Rollout:
    """The same response after the teacher's prompt; refused unless the ids differ by an insertion alone."""
    rollout, input_ids = teacher_input.rollout, teacher_input.input_ids
    assert input_ids is not None
    num_inserted = max(0, len(input_ids) - len(rollout.prompt) - len(rollout.response))
    check_teacher_alignment(rollout, input_ids, num_inserted)
    return replace(rollout, prompt=input_ids[: len(input_ids) - len(rollout.response)])
