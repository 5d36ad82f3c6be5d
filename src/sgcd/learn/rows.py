"""Rows of logits, a budget of memory at a time: a product with the head, then its statistics while they are in cache.

A product with some hundred rows at once is fast; statistics are fast on a few rows that stay in the processor's cache.
So a chunk of logits is made at a time, and looked at block by block. Nothing of the size [tokens, vocabulary] is kept.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from logging import getLogger

import torch
from torch import Tensor

from sgcd.errors import RecipeError
from sgcd.learn.block import Block, block
from sgcd.learn.head import Head
from sgcd.learn.tiles import Tiles, tiles

log = getLogger(__name__)

ROOM = 2**30
"""Bytes for logits and what is made of them, unless told otherwise."""
ROWS = 256
"""Rows of a product on a CPU: more are no faster."""
OWN = 8
"""The part of a budget that is left to what a product takes for itself: one in so many."""
BLOCK = 2**20
"""Logits that are looked at together on a CPU: about what stays in its cache."""


def blocks(
    head: Head, hidden: Tensor, observed: Tensor, temperature: float, room: int = ROOM, kept: Tensor | None = None
) -> Iterator[Block | Tiles]:
    """All rows in order, at least one block, if an empty one.

    With `kept` [rows, vocabulary] the products stay there, as they came from the head.
    """
    rows, step, wide = plan(head, hidden, room)
    chunk = None if kept is not None else product_like(head, hidden, min(rows, len(hidden)))
    once = fused(hidden)
    spare = torch.empty(2, 0 if once else min(step, len(hidden)), head.size, dtype=wide, device=hidden.device)
    for start in range(0, max(1, len(hidden)), rows):
        here = slice(start, min(start + rows, len(hidden)))
        raw = kept[here] if kept is not None else chunk[: here.stop - start]  # type: ignore[index]
        head.raw(hidden[here], raw)
        if once:
            yield read_once(head, raw, observed[here], here, temperature)
        else:
            yield from in_cache(head, hidden, observed, raw, start, temperature, spare)


def read_once(head: Head, raw: Tensor, observed: Tensor, here: slice, temperature: float) -> Tiles:
    from sgcd.learn.kernel import figures

    return tiles(head, raw, observed, here, temperature, figures(raw, head, temperature))


def in_cache(
    head: Head, hidden: Tensor, observed: Tensor, raw: Tensor, start: int, temperature: float, spare: Tensor
) -> Iterator[Block]:
    """The rows of one product, which begin at `start`, in buffers for so many that they stay in cache."""
    step = max(1, spare.shape[1])
    for at in range(0, max(1, len(raw)), step):
        part = raw[at : at + step]
        here = slice(start + at, start + at + len(part))
        z = head.finish(part, temperature, spare[0, : len(part)])
        yield block(head, hidden[here], observed[here], z, spare[1, : len(part)], part.dtype, here, temperature)


def fused(hidden: Tensor) -> bool:
    """Whether logits are read once, by the kernel."""
    return hidden.is_cuda and hidden.dtype != torch.float64 and runs(hidden.device)


@cache
def runs(device: torch.device) -> bool:
    """Whether the kernel runs here: Triton has to be there, and a C compiler for it. Asked once."""
    if find_spec("triton") is None:
        return False
    from sgcd.learn.kernel import figures

    try:
        figures(torch.zeros(1, 1, device=device), Head(torch.zeros(1, 1, device=device)), 1.0)
    except Exception as problem:
        log.warning("the kernel for CUDA does not run here (%s): logits are read by torch alone, more slowly", problem)
        return False
    return True


def product_like(head: Head, hidden: Tensor, rows: int) -> Tensor:
    """Where a product with the head goes."""
    return torch.empty(rows, head.size, dtype=product_type(hidden), device=hidden.device)


def product_type(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32) if hidden.is_cuda else hidden.dtype


def plan(head: Head, hidden: Tensor, room: int) -> tuple[int, int, torch.dtype]:
    """Rows of a product, rows of a block, and the type of statistics, within `room` bytes."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    row = head.size * wide.itemsize
    enough(head.size, room, wide.itemsize)
    if fused(hidden):  # nothing else is as large as the product
        rows = max(1, room // (2 * row))
        return rows, rows, wide
    step = max(1, min(BLOCK // head.size if not hidden.is_cuda else room, room // (6 * row)))
    rows = max(1, (room - room // OWN - 3 * step * row) // (head.size * product_type(hidden).itemsize))
    if not hidden.is_cuda:
        rows = min(rows, max(ROWS, BLOCK // head.size))
    return rows, min(step, rows), wide


def enough(size: int, room: int, itemsize: int = 4) -> None:
    """Refuse a budget that does not hold one row and its statistics."""
    if room < 3 * size * itemsize:
        raise RecipeError(
            f"scoring.bytes: {room:,} do not hold one row of logits; a vocabulary of {size:,} needs at least "
            f"{3 * size * itemsize:,}"
        )
