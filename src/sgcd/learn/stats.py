"""What a distribution says, in a few numbers a row, straight from hidden states; no logits are kept, no gradient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.learn.block import Block
from sgcd.learn.head import Head
from sgcd.learn.rows import ROOM, blocks
from sgcd.learn.tiles import Tiles

AT_ONCE = 2**26
"""Bytes of the head's rows that are gathered at a time."""


@dataclass(frozen=True, slots=True)
class Top:
    """One entry for each row."""

    ids: Tensor
    """[rows, K]: the likeliest, ascending, ties to the lower id."""
    logp: Tensor
    """[rows, K]: log-probabilities of these."""
    own: Tensor
    """log p of the observed id."""
    rest: Tensor
    """log p of everything else together: neither among `ids` nor observed; -inf where nothing is left."""
    entropy: Tensor
    """Of the whole vocabulary."""
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Said:
    """The same at ids that somebody else has chosen, for each who has: (log p at their ids, log p of the rest)."""

    own: Tensor
    entropy: Tensor
    lse: Tensor
    at: list[tuple[Tensor, Tensor]]


@torch.no_grad()
def topk_stats(hidden: Tensor, head: Head, observed: Tensor, k: int, temperature: float = 1.0, room: int = ROOM) -> Top:
    """The K likeliest ids of each row of `hidden` [rows, hidden], and what goes with them."""
    found = []
    for block in blocks(head, hidden, observed, temperature, room):
        ids, logp, rest = block.top(k)
        found.append((ids, logp, block.own, rest, block.entropy, block.lse))
    return Top(*(torch.cat(part) for part in zip(*found, strict=True)))


@torch.no_grad()
def stats_at(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    ids: Sequence[Tensor] = (),
    temperature: float = 1.0,
    room: int = ROOM,
) -> Said:
    """Statistics of each row at each of `ids` [rows, K], by the same products in the same order as topk_stats."""
    return collect(blocks(head, hidden, observed, temperature, room), ids)


def collect(rows: Iterator[Block | Tiles], ids: Sequence[Tensor]) -> Said:
    """One pass over blocks of rows."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    at: list[list[tuple[Tensor, Tensor]]] = [[] for _ in ids]
    for block in rows:
        found.append((block.own, block.entropy, block.lse))
        for said, some in zip(at, ids, strict=True):
            said.append(block.at(some[block.here]))
    own, entropy, lse = (torch.cat(part) for part in zip(*found, strict=True))
    told = [(torch.cat([logp for logp, _ in said]), torch.cat([rest for _, rest in said])) for said in at]
    return Said(own, entropy, lse, told)


@torch.no_grad()
def logp_at(hidden: Tensor, head: Head, ids: Tensor, lse: Tensor, temperature: float = 1.0) -> Tensor:
    """log p at `ids` [rows, K], for whoever knows the rows' LSE already: by gathering K rows of the head."""
    each = max(1, ids.shape[1] * head.weight.shape[1] * 4)
    rows = max(1, AT_ONCE // each)
    found = [
        head.logits_at(hidden[start : start + rows], ids[start : start + rows], temperature)
        for start in range(0, max(1, len(hidden)), rows)
    ]
    return torch.cat(found) - lse[:, None]
