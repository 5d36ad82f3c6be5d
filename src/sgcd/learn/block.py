"""Some rows of logits and all that is asked of them, in few passes while they are in the processor's cache."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.learn.head import Head

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
    """Probabilities, but for a factor `mass`."""
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

    def top(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and what `at` says of them."""
        k = min(k, self.z.shape[-1])
        if self.exact:
            ids = largest(self.z, k)
            return ids, *self._at(ids, self.z.gather(1, ids))
        candidates = self.best
        if k + SPARE > candidates.shape[-1]:
            candidates = about(self.z, min(k + SPARE, self.z.shape[-1])).sort(-1).values
            logits = self._logits(candidates)
        else:
            logits = self.z.gather(1, candidates)
        chosen = top_ids(logits, k)
        ids = candidates.gather(1, chosen)
        return ids, *self._at(ids, logits.gather(1, chosen))

    def at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids`, and of everything that is neither there nor the observed id, summed where it stands."""
        return self._at(ids, self._logits(ids))

    def _at(self, ids: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        taken = torch.cat([ids, self.observed[:, None]], dim=1)
        kept = self.p.gather(1, taken)
        self.p.scatter_(1, taken, 0)
        rest = (self.p.sum(-1) / self.mass).log()
        self.p.scatter_(1, taken, kept)
        return logits - self.lse[:, None], rest

    def _logits(self, ids: Tensor) -> Tensor:
        return self.z.gather(1, ids) if self.exact else self.head.logits_at(self.hidden, ids, self.temperature)


def block(
    head: Head, hidden: Tensor, observed: Tensor, z: Tensor, p: Tensor, dtype: torch.dtype, here: slice, heat: float
) -> Block:
    """The rows `z`, whose product was of type `dtype`; `p` is where the probabilities go."""
    best = observed[:, None][:, :0]
    if dtype in (torch.float32, torch.float64):
        high = z.amax(-1)
    else:  # what decides the sum is computed again
        best = about(z, min(EXACT, head.size)).sort(-1).values
        again = torch.cat([best, observed[:, None]], dim=1)
        logits = head.logits_at(hidden, again, heat)
        z.scatter_(1, again, logits)
        high = logits.amax(-1)
    shift = high * math.log2(math.e)
    powers(z, shift, p)
    mass = p.sum(-1)
    lse = (shift.double() * math.log(2) + mass.double().log()).to(z.dtype)
    return Block(here, hidden, observed, z, p, mass, lse, best, head, heat)


def powers(z: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """exp(z), each row divided by two to the power of its `shift`: torch has a faster power of two than of e."""
    return torch.add(-shift[:, None], z, alpha=math.log2(math.e), out=out).exp2_()


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
