"""A few statistics of each token's next-token distribution, from hidden states: no gradient, and no logits are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.block import LogitsBlock, LogitsInputs
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES, iter_logits_blocks


@dataclass(frozen=True, slots=True)
class TopKStats:
    """One entry per token."""

    ids: Tensor
    """[tokens, K]: the likeliest ids, ascending, ties to the lower id."""
    logprobs: Tensor
    """[tokens, K]: log p of these."""
    observed_logprob: Tensor
    """log p of the observed id."""
    tail_logprob: Tensor
    """log p of all other ids together: neither among `ids` nor observed; -inf where there are none."""
    entropy: Tensor
    """Over the whole vocabulary."""
    logsumexp: Tensor


@dataclass(frozen=True, slots=True)
class LogitStats:
    """One entry per token, and log-probabilities at ids that the caller chose."""

    observed_logprob: Tensor
    entropy: Tensor
    logsumexp: Tensor
    logprobs_at: list[tuple[Tensor, Tensor]]
    """For each set of ids: log p at these ids [tokens, K], and of the tail outside them and the observed id."""


@torch.no_grad()
def topk_stats(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    *,
    k: int,
    temperature: float = 1.0,
    logits_bytes: int = LOGITS_BYTES,
) -> TopKStats:
    """Statistics of each token of `hidden` [tokens, hidden] at its K likeliest ids."""
    parts = []
    for block in iter_logits_blocks(LogitsInputs(hidden, head, observed, temperature), logits_bytes):
        ids, logprobs, tail_logprob = block.top_k(k)
        parts.append((ids, logprobs, block.observed_logprob, tail_logprob, block.entropy, block.logsumexp))
    return TopKStats(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def stats_at(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    *,
    ids: Sequence[Tensor] = (),
    temperature: float = 1.0,
    logits_bytes: int = LOGITS_BYTES,
) -> LogitStats:
    """Statistics of each token at each of `ids` [tokens, K], by the same products in the same order as `topk_stats`."""
    return collect_stats(iter_logits_blocks(LogitsInputs(hidden, head, observed, temperature), logits_bytes), ids)


def collect_stats(logits_blocks: Iterator[LogitsBlock], ids: Sequence[Tensor]) -> LogitStats:
    """One pass over the blocks of all tokens."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    pairs_of_ids: list[list[tuple[Tensor, Tensor]]] = [[] for _ in ids]
    for block in logits_blocks:
        parts.append((block.observed_logprob, block.entropy, block.logsumexp))
        for pairs, token_ids in zip(pairs_of_ids, ids, strict=True):
            pairs.append(block.logprobs_at(token_ids[block.token_slice]))
    observed_logprob, entropy, logsumexp = (torch.cat(part) for part in zip(*parts, strict=True))
    logprobs_at = [
        (torch.cat([logprobs for logprobs, _ in pairs]), torch.cat([tail for _, tail in pairs]))
        for pairs in pairs_of_ids
    ]
    return LogitStats(observed_logprob, entropy, logsumexp, logprobs_at)
