"""Rows of logits, a budget of memory at a time: a product with the head, then its statistics while they are in cache.

A product with some hundred rows at once is fast; statistics are fast on a few rows that stay in the processor's cache.
So a chunk of logits is made at a time, and looked at block by block. Nothing of the size [tokens, vocabulary] is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.errors import RecipeError
from sgcd.learn.head import Head

ROOM = 2**30
"""Bytes for logits and what is made of them, unless told otherwise."""
ROWS = 256
"""Rows of a product on a CPU: more are no faster."""
BLOCK = 2**20
"""Logits that are looked at together on a CPU: about what stays in its cache."""
FEW = 8
"""Rows that are so long that each is multiplied by itself."""
GROUP = 128
"""Columns of which the maximum is taken first; the K largest logits lie in the K groups with the largest maxima."""
EXACT = 64
"""Logits of a row that are computed again exactly where the product's are below float32."""
SPARE = 12
"""Candidates beyond K that are computed again before the K largest are chosen."""


@dataclass(slots=True)
class Block:
    """Some rows of logits and their statistics; the buffers behind it are used again for the next block."""

    here: slice
    """Which rows."""
    hidden: Tensor
    observed: Tensor
    z: Tensor
    """[rows, vocabulary], over the temperature, at least float32."""
    p: Tensor
    """Probabilities, but for a factor `mass` that is one up to rounding."""
    mass: Tensor
    lse: Tensor
    best: Tensor
    """Where the product was below float32: ids at which z was computed again, as it was at the observed one."""
    head: Head
    temperature: float

    @property
    def exact(self) -> bool:
        return not self.best.shape[-1]

    @property
    def own(self) -> Tensor:
        """log p of the observed id."""
        return self.z.gather(1, self.observed[:, None])[:, 0] - self.lse

    @property
    def entropy(self) -> Tensor:
        """Of the whole vocabulary: LSE - sum p z."""
        if 0 < len(self.z) <= FEW:
            mean = torch.stack([torch.dot(p, z) for p, z in zip(self.p, self.z, strict=True)])
        else:
            mean = torch.linalg.vecdot(self.p, self.z)
        return (self.lse - mean / self.mass).clamp_min(0)

    def top(self, k: int) -> Tensor:
        """Ids of the K largest logits, ascending; ties go to the lower id."""
        k = min(k, self.z.shape[-1])
        if self.exact:
            return largest(self.z, k)
        if k + SPARE <= self.best.shape[-1]:
            return self.best.gather(1, top_ids(self.z.gather(1, self.best), k))
        candidates = about(self.z, min(k + SPARE, self.z.shape[-1])).sort(-1).values
        return candidates.gather(1, top_ids(self._logits(candidates), k))

    def at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids`, and of everything that is neither there nor the observed id, summed where it stands."""
        taken = torch.cat([ids, self.observed[:, None]], dim=1)
        kept = self.p.gather(1, taken)
        self.p.scatter_(1, taken, 0)
        rest = (self.p.sum(-1) / self.mass).log()
        self.p.scatter_(1, taken, kept)
        return self._logits(ids) - self.lse[:, None], rest

    def _logits(self, ids: Tensor) -> Tensor:
        return self.z.gather(1, ids) if self.exact else self.head.logits_at(self.hidden, ids, self.temperature)


def blocks(
    head: Head, hidden: Tensor, observed: Tensor, temperature: float, room: int = ROOM, kept: Tensor | None = None
) -> Iterator[Block]:
    """All rows in order, at least one block, if an empty one.

    With `kept` [rows, vocabulary] the products stay there, as they came from the head.
    """
    rows, step, wide = plan(head, hidden, room)
    chunk = None if kept is not None else product_like(head, hidden, min(rows, len(hidden)))
    buffers = [torch.empty(min(step, len(hidden)), head.size, dtype=wide, device=hidden.device) for _ in range(2)]
    for start in range(0, max(1, len(hidden)), rows):
        some = hidden[start : start + rows]
        raw = kept[start : start + rows] if kept is not None else chunk[: len(some)]  # type: ignore[index]
        head.raw(some, raw)
        for at in range(0, max(1, len(some)), step):
            part = raw[at : at + step]
            here = slice(start + at, start + at + len(part))
            z = head.finish(part, temperature, buffers[0][: len(part)])
            yield block(head, hidden[here], observed[here], z, buffers[1][: len(part)], part.dtype, here, temperature)


def block(
    head: Head, hidden: Tensor, observed: Tensor, z: Tensor, p: Tensor, dtype: torch.dtype, here: slice, heat: float
) -> Block:
    best = observed[:, None][:, :0]
    if dtype not in (torch.float32, torch.float64):  # what decides the sum is computed again
        best = about(z, min(EXACT, head.size)).sort(-1).values
        again = torch.cat([best, observed[:, None]], dim=1)
        z.scatter_(1, again, head.logits_at(hidden, again, heat))
    torch.softmax(z, -1, out=p)
    mass = p.sum(-1)  # softmax adds up a row one number after the other
    lse = z.amax(-1) - p.amax(-1).log() + mass.log()
    return Block(here, hidden, observed, z, p, mass, lse, best, head, heat)


def largest(z: Tensor, k: int) -> Tensor:
    """`top_ids` in two stages: the best groups of columns first, then inside these."""
    groups = z.shape[-1] // GROUP
    if groups <= 2 * k:
        return top_ids(z, k)
    split = groups * GROUP
    tiles = z[:, :split].unflatten(1, (groups, GROUP))
    best = top_ids(tiles.amax(-1), k)
    columns = (best[:, :, None] * GROUP + torch.arange(GROUP, device=z.device)).flatten(1)
    if split < z.shape[-1]:
        last = torch.arange(split, z.shape[-1], device=z.device).expand(len(z), -1)
        columns = torch.cat([columns, last], dim=1)
    return columns.gather(1, top_ids(z.gather(1, columns), k))


def about(z: Tensor, k: int) -> Tensor:
    """The same in no order, and among equals any of them."""
    groups = z.shape[-1] // GROUP
    if groups <= 2 * k or z.shape[-1] % GROUP:
        return z.topk(k, sorted=False).indices
    tiles = z.unflatten(1, (groups, GROUP))
    best = tiles.amax(-1).topk(k, sorted=False).indices
    inside = tiles.gather(1, best[:, :, None].expand(-1, -1, GROUP)).flatten(1).topk(k, sorted=False).indices
    return best.gather(1, inside // GROUP) * GROUP + inside % GROUP


def product_like(head: Head, hidden: Tensor, rows: int) -> Tensor:
    """Where a product with the head goes."""
    dtype = torch.promote_types(hidden.dtype, torch.float32) if hidden.is_cuda else hidden.dtype
    return torch.empty(rows, head.size, dtype=dtype, device=hidden.device)


def plan(head: Head, hidden: Tensor, room: int) -> tuple[int, int, torch.dtype]:
    """Rows of a product, rows of a block, and the type of statistics, within `room` bytes."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    row = head.size * wide.itemsize
    enough(head.size, room, wide.itemsize)
    step = max(1, min(BLOCK // head.size if not hidden.is_cuda else room, room // (6 * row)))
    rows = max(1, (room - 3 * step * row) // row)
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
