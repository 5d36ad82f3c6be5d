"""What a distribution says, in a few numbers a row, straight from hidden states; no logits are kept, no gradient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES, iter_logits_blocks
from sgcd.learn.scoring.logits.cpu_block import CpuLogitsBlock
from sgcd.learn.scoring.logits.cuda_block import CudaLogitsBlock

_MAX_GATHERED_BYTES = 2**26
"""Bytes of the head's rows that are gathered at a time."""


@dataclass(frozen=True, slots=True)
class TopKStats:
    """One entry for each row."""

    ids: Tensor
    """[rows, K]: the likeliest, ascending, ties to the lower id."""
    logprobs: Tensor
    """[rows, K]: log-probabilities of these."""
    observed_logprob: Tensor
    """log p of the observed id."""
    tail_logprob: Tensor
    """log p of everything else together: neither among `ids` nor observed; -inf where nothing is left."""
    entropy: Tensor
    """Of the whole vocabulary."""
    logsumexp: Tensor


@dataclass(frozen=True, slots=True)
class LogitStats:
    """The same at ids that somebody else has chosen, for each who has: (log p at their ids, log p of the rest)."""

    observed_logprob: Tensor
    entropy: Tensor
    logsumexp: Tensor
    logprobs_at: list[tuple[Tensor, Tensor]]


@torch.no_grad()
def topk_stats(
    hidden: Tensor, head: Head, observed: Tensor, k: int, temperature: float = 1.0, logits_bytes: int = LOGITS_BYTES
) -> TopKStats:
    """The K likeliest ids of each row of `hidden` [rows, hidden], and what goes with them."""
    parts = []
    for block in iter_logits_blocks(head, hidden, observed, temperature, logits_bytes):
        ids, logprobs, tail_logprob = block.top_k(k)
        parts.append((ids, logprobs, block.observed_logprob, tail_logprob, block.entropy, block.logsumexp))
    return TopKStats(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def stats_at(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    ids: Sequence[Tensor] = (),
    temperature: float = 1.0,
    logits_bytes: int = LOGITS_BYTES,
) -> LogitStats:
    """Statistics of each row at each of `ids` [rows, K], by the same products in the same order as topk_stats."""
    return collect_stats(iter_logits_blocks(head, hidden, observed, temperature, logits_bytes), ids)


def collect_stats(logits_blocks: Iterator[CpuLogitsBlock | CudaLogitsBlock], ids: Sequence[Tensor]) -> LogitStats:
    """One pass over blocks of rows."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    pairs_of_ids: list[list[tuple[Tensor, Tensor]]] = [[] for _ in ids]
    for block in logits_blocks:
        parts.append((block.observed_logprob, block.entropy, block.logsumexp))
        for pairs, row_ids in zip(pairs_of_ids, ids, strict=True):
            pairs.append(block.logprobs_at(row_ids[block.token_slice]))
    observed_logprob, entropy, logsumexp = (torch.cat(part) for part in zip(*parts, strict=True))
    logprobs_at = [
        (torch.cat([logp for logp, _ in pairs]), torch.cat([rest for _, rest in pairs])) for pairs in pairs_of_ids
    ]
    return LogitStats(observed_logprob, entropy, logsumexp, logprobs_at)


@torch.no_grad()
def gather_logprobs(hidden: Tensor, head: Head, ids: Tensor, lse: Tensor, temperature: float = 1.0) -> Tensor:
    """log p at `ids` [rows, K], for whoever knows the rows' LSE already: by gathering K rows of the head."""
    bytes_per_row = max(1, ids.shape[1] * head.weight.shape[1] * 4)
    chunk_rows = max(1, _MAX_GATHERED_BYTES // bytes_per_row)
    parts = [
        head.logits_at(hidden[start : start + chunk_rows], ids[start : start + chunk_rows], temperature)
        for start in range(0, max(1, len(hidden)), chunk_rows)
    ]
    return torch.cat(parts) - lse[:, None]
