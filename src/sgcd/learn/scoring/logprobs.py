"""Log-probabilities of finished rollouts: the trainer's own, at the temperature they were sampled at."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.learn.policy.head import get_backbone, get_head
from sgcd.learn.scoring.batch import ForwardConfig, PaddedBatch, pad_batch, split_micro_batches, unpack_policy_tokens
from sgcd.learn.scoring.logits.stats import stats_at
from sgcd.records import Floats, Rollout

PolicyHiddenStates = tuple[Tensor, Tensor]
"""Hidden states [written tokens, hidden] from which the next token is predicted, and the ids that were written."""


@torch.no_grad()
def score_logprobs(model: Any, rollouts: Sequence[Rollout], config: ForwardConfig) -> list[Floats]:
    """For each rollout, one number for each token of its response: log p(y_t) where it was written, 0 elsewhere."""
    logprobs: dict[int, Floats] = {}
    for indices, (hidden, observed_ids) in forward_micro_batches(model, rollouts, config.micro_batch_tokens):
        stats = stats_at(
            hidden, get_head(model), observed_ids, temperature=config.temperature, logits_bytes=config.logits_bytes
        )
        packed = stats.observed_logprob
        logprobs |= zip(indices, unpack_policy_tokens(packed, [rollouts[index] for index in indices]), strict=True)
    return [logprobs[index] for index in range(len(rollouts))]


def forward_hidden_states(model: Any, batch: PaddedBatch) -> PolicyHiddenStates:
    """One forward pass. The head will be asked only for what was written."""
    device = next(model.parameters()).device
    input_ids, target_mask = batch.input_ids.to(device), batch.target_mask.to(device)
    hidden = get_backbone(model)(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden[:, :-1][target_mask], input_ids[:, 1:][target_mask]


def forward_micro_batches(
    model: Any, rollouts: Sequence[Rollout], micro_batch_tokens: int
) -> Iterator[tuple[list[int], PolicyHiddenStates]]:
    """One forward pass after the other, each with the rollouts that it read."""
    for indices in split_micro_batches(rollouts, micro_batch_tokens):
        yield indices, forward_hidden_states(model, pad_batch([rollouts[index] for index in indices]))


def sampler_mismatch(rollouts: Sequence[Rollout], trainer_logprobs: Sequence[Floats]) -> tuple[float, float]:
    """Mean and largest |trainer - sampler| over the written tokens: how far sampling and training disagree."""
    differences = [
        np.abs(logprobs - rollout.sampling_logprobs)[rollout.response_mask]
        for rollout, logprobs in zip(rollouts, trainer_logprobs, strict=True)
    ]
    values = np.concatenate(differences) if differences else np.zeros(0, np.float32)
    return (float(values.mean()), float(values.max())) if values.size else (0.0, 0.0)
