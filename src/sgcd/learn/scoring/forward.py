"""Rollouts as micro-batches, padded or as a tree of their prefixes, the forward pass over them, and their
log-probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sgcd.learn.policy.head import get_backbone, get_head
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.scoring.logits.stats import stats_at
from sgcd.learn.scoring.prefix_tree import (
    PrefixTree,
    build_prefix_tree,
    count_tree_tokens,
    sort_by_prefix,
    split_by_prefix,
)
from sgcd.learn.scoring.tree_attention import forward_tree, why_not_shared
from sgcd.learn.settings import MAX_MICRO_BATCH_TOKENS, MAX_TREE_SHARE, ScoringSettings
from sgcd.records import Flags, Floats, Rollout, TokenIds


@dataclass(frozen=True, slots=True)
class ForwardConfig:
    """How a forward pass over rollouts is run. The two budgets change nothing but the last bits."""

    temperature: float = 1.0
    """At which log-probabilities are taken: the one that the rollouts were sampled at."""
    micro_batch_tokens: int = MAX_MICRO_BATCH_TOKENS
    """In one forward pass, padding included."""
    logits_bytes: int = LOGITS_BYTES
    """For logits and what is computed from them."""
    share: bool = False
    """Compute common prefixes of rollouts once, where the model can."""

    @classmethod
    def build(cls, temperature: float, micro_batch_tokens: int | None, scoring: ScoringSettings) -> Self:
        """From a recipe."""
        limit = micro_batch_tokens or MAX_MICRO_BATCH_TOKENS
        return cls(temperature, limit, scoring.logits_bytes, share=scoring.share)


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Rollouts padded on the right to one length: the causal model never sees padding from a real token."""

    input_ids: Tensor
    """[rows, length]: prompt, then response, then padding."""
    target_mask: Tensor
    """[rows, length - 1]: True at column t where the policy wrote token t + 1."""
    num_padding: int = 0

    @property
    def num_tokens(self) -> int:
        """That a forward pass reads."""
        return self.input_ids.numel()


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Rollouts as one row, the tree of their prefixes; one entry for each written token, rollout after rollout."""

    tree: PrefixTree
    sources: Tensor
    """The place in the row from which a written token is predicted."""
    targets: Tensor
    """The place of the written token itself."""
    num_padding: ClassVar[int] = 0

    @property
    def num_tokens(self) -> int:
        """That a forward pass reads."""
        return self.tree.num_tokens


def split_micro_batches(model: Any, rollouts: Sequence[Rollout], config: ForwardConfig) -> list[list[int]]:
    """Indices of each micro-batch's rollouts; neighbours in the tree of prefixes where that saves enough tokens."""
    padded = split_by_length(rollouts, config.micro_batch_tokens)
    num_padded = sum(count_padded_tokens([rollouts[index] for index in indices]) for indices in padded)
    if saves_tokens(model, rollouts, num_padded, config):
        return split_by_prefix([join_ids(rollout) for rollout in rollouts], config.micro_batch_tokens)
    return padded


def saves_tokens(model: Any, rollouts: Sequence[Rollout], num_padded: int, config: ForwardConfig) -> bool:
    """Whether the tree of some rollouts is to be computed instead of `num_padded` tokens."""
    if not config.share or why_not_shared(model):
        return False
    sequences = [join_ids(rollout) for rollout in rollouts]
    num_tokens = count_tree_tokens([sequences[index] for index in sort_by_prefix(sequences)])
    return num_tokens <= MAX_TREE_SHARE * num_padded


def split_by_length(rollouts: Sequence[Rollout], micro_batch_tokens: int) -> list[list[int]]:
    """Sorted by length, filled up to `micro_batch_tokens` padded tokens."""

    def sort_key(index: int) -> tuple[int, str, int]:
        rollout = rollouts[index]
        return (total_length(rollout), rollout.task, rollout.sibling)

    micro_batches: list[list[int]] = []
    for index in sorted(range(len(rollouts)), key=sort_key):
        # Sorted by length, so the newest rollout is the longest and sets the width.
        if micro_batches and (len(micro_batches[-1]) + 1) * total_length(rollouts[index]) <= micro_batch_tokens:
            micro_batches[-1].append(index)
        else:
            micro_batches.append([index])
    return micro_batches


def total_length(rollout: Rollout) -> int:
    return len(rollout.prompt) + len(rollout.response)


def count_padded_tokens(rollouts: Sequence[Rollout]) -> int:
    return len(rollouts) * max(map(total_length, rollouts), default=0)


def join_ids(rollout: Rollout) -> TokenIds:
    return np.concatenate([rollout.prompt, rollout.response])


def build_batch(model: Any, rollouts: Sequence[Rollout], config: ForwardConfig) -> PaddedBatch | TreeBatch:
    """The rollouts of one micro-batch."""
    if saves_tokens(model, rollouts, count_padded_tokens(rollouts), config):
        return build_tree_batch(rollouts)
    return pad_batch(rollouts)


def build_tree_batch(rollouts: Sequence[Rollout]) -> TreeBatch:
    tree = build_prefix_tree([join_ids(rollout) for rollout in rollouts])
    written = [len(rollout.prompt) + np.flatnonzero(rollout.response_mask) for rollout in rollouts]
    targets = [places[at] for places, at in zip(tree.places, written, strict=True)]
    sources = [places[at - 1] for places, at in zip(tree.places, written, strict=True)]
    return TreeBatch(tree, torch.from_numpy(np.concatenate(sources)), torch.from_numpy(np.concatenate(targets)))


def pad_batch(rollouts: Sequence[Rollout]) -> PaddedBatch:
    width = max(total_length(rollout) for rollout in rollouts)
    input_ids = np.zeros((len(rollouts), width), np.int64)
    for row, rollout in enumerate(rollouts):
        input_ids[row, : total_length(rollout)] = np.concatenate([rollout.prompt, rollout.response])
    target_mask = np.zeros((len(rollouts), width - 1), np.bool_)
    for row, rollout in enumerate(rollouts):
        start = len(rollout.prompt) - 1
        target_mask[row, start : start + len(rollout.response_mask)] = rollout.response_mask
    num_padding = input_ids.size - sum(map(total_length, rollouts))
    return PaddedBatch(torch.from_numpy(input_ids), torch.from_numpy(target_mask), num_padding)


def pack_policy_tokens(arrays: Sequence[Floats | Flags], rollouts: Sequence[Rollout]) -> Tensor:
    """Concatenates the policy tokens of per-response arrays, in the order of the forward pass."""
    parts = [array[rollout.response_mask] for array, rollout in zip(arrays, rollouts, strict=True)]
    return torch.from_numpy(np.concatenate(parts))


def unpack_policy_tokens(packed: Tensor, rollouts: Sequence[Rollout]) -> list[Floats]:
    """Inverts `pack_policy_tokens`; tokens that the policy did not write are zero."""
    parts = packed.float().cpu().split([rollout.num_policy_tokens for rollout in rollouts])
    arrays = [np.zeros(len(rollout.response), np.float32) for rollout in rollouts]
    for array, rollout, part in zip(arrays, rollouts, parts, strict=True):
        array[rollout.response_mask] = part.numpy()
    return arrays


PolicyHiddenStates = tuple[Tensor, Tensor]
"""Hidden states [written tokens, hidden] from which the next token is predicted, and the ids that were written."""


@torch.no_grad()
def score_logprobs(model: Any, rollouts: Sequence[Rollout], config: ForwardConfig) -> list[Floats]:
    """For each rollout, one number for each token of its response: log p(y_t) where it was written, 0 elsewhere."""
    logprobs: dict[int, Floats] = {}
    for indices, (hidden, observed_ids) in forward_micro_batches(model, rollouts, config):
        stats = stats_at(
            hidden, get_head(model), observed_ids, temperature=config.temperature, logits_bytes=config.logits_bytes
        )
        packed = stats.observed_logprob
        logprobs |= zip(indices, unpack_policy_tokens(packed, [rollouts[index] for index in indices]), strict=True)
    return [logprobs[index] for index in range(len(rollouts))]


def forward_hidden_states(model: Any, batch: PaddedBatch | TreeBatch) -> PolicyHiddenStates:
    """One forward pass. The head is applied only where the policy wrote."""
    device = next(model.parameters()).device
    if isinstance(batch, TreeBatch):
        hidden = forward_tree(model, batch.tree)
        observed_ids = torch.from_numpy(batch.tree.token_ids)[batch.targets]
        return hidden[batch.sources.to(device)], observed_ids.to(device)
    input_ids, target_mask = batch.input_ids.to(device), batch.target_mask.to(device)
    hidden = get_backbone(model)(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden[:, :-1][target_mask], input_ids[:, 1:][target_mask]


def forward_micro_batches(
    model: Any, rollouts: Sequence[Rollout], config: ForwardConfig
) -> Iterator[tuple[list[int], PolicyHiddenStates]]:
    """One forward pass after the other, each with the rollouts that it read."""
    for indices in split_micro_batches(model, rollouts, config):
        batch = build_batch(model, [rollouts[index] for index in indices], config)
        yield indices, forward_hidden_states(model, batch)


def sampler_mismatch(rollouts: Sequence[Rollout], trainer_logprobs: Sequence[Floats]) -> tuple[float, float]:
    """Mean and largest |trainer - sampler| over the written tokens: how far sampling and training disagree."""
    differences = [
        np.abs(logprobs - rollout.sampling_logprobs)[rollout.response_mask]
        for rollout, logprobs in zip(rollouts, trainer_logprobs, strict=True)
    ]
    values = np.concatenate(differences) if differences else np.zeros(0, np.float32)
    return (float(values.mean()), float(values.max())) if values.size else (0.0, 0.0)
