"""What a block says, from three numbers for each group of columns: all logits are read once, and few of them again."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.learn.block import GROUP
from sgcd.learn.head import Head

AGAIN = 2**22
"""Logits that are gathered at a time."""


@dataclass(slots=True)
class Tiles:
    """Some rows of logits and their statistics."""

    here: slice
    """Which rows."""
    observed: Tensor
    raw: Tensor
    """[rows, vocabulary]: the head's product; it is not changed."""
    high: Tensor
    """[rows, groups]: the largest logit, over the temperature."""
    share: Tensor
    """[rows, groups]: sum of exp(z - peak)."""
    peak: Tensor
    total: Tensor
    """Sum of exp(z - peak) over the whole row."""
    entropy: Tensor
    """Of the whole vocabulary."""
    head: Head
    temperature: float

    @property
    def lse(self) -> Tensor:
        return self.peak + self.total.log()

    @property
    def own(self) -> Tensor:
        """log p of the observed id."""
        return self._z(self.raw, self.observed[:, None])[:, 0] - self.lse

    def top(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and what `at` says of them."""
        k = min(k, self.head.size)
        ids = self._parts(lambda rows: self._top(rows, k), min(k, self.high.shape[1]))
        return ids, *self.at(ids)

    def at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids`, and of everything that is neither there nor the observed id, summed where it stands."""
        taken = torch.cat([ids, self.observed[:, None]], dim=1)
        rest = self._parts(lambda rows: self._rest(rows, taken[rows]), taken.shape[1])
        return self._z(self.raw, ids) - self.lse[:, None], (rest / self.total).log()

    def _top(self, rows: slice, k: int) -> Tensor:
        """The K groups with the largest maxima, then the K largest of these."""
        columns = self._columns(top_ids(self.high[rows], k)).flatten(1)
        return columns.gather(1, top_ids(self._at_columns(rows, columns), k))

    def _rest(self, rows: slice, taken: Tensor) -> Tensor:
        """Groups that hold none of `taken` as they are; of the others what is not taken, each of them once."""
        groups = taken // GROUP
        untouched = self.share[rows].scatter(1, groups, 0).sum(-1)
        order = groups.sort(-1).values
        again = order[:, 1:] == order[:, :-1]
        beside = self._at_columns(rows, self._columns(order).flatten(1))
        e = beside.sub_(self.peak[rows, None]).exp_().unflatten(1, (-1, GROUP))
        e[:, 1:].masked_fill_(again[:, :, None], 0)
        slot = torch.searchsorted(order, groups) * GROUP + taken % GROUP
        return untouched + e.flatten(1).scatter_(1, slot, 0).sum(-1)

    def _columns(self, groups: Tensor) -> Tensor:
        return groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)

    def _at_columns(self, rows: slice, columns: Tensor) -> Tensor:
        """Logits; -inf beyond the vocabulary's end, in the last group."""
        last = self.head.size - 1
        return self._z(self.raw[rows], columns.clamp(max=last)).masked_fill(columns > last, -torch.inf)

    def _z(self, raw: Tensor, ids: Tensor) -> Tensor:
        found = raw.gather(1, ids)
        return self.head.finish(found, self.temperature, found)

    def _parts(self, run: Callable[[slice], Tensor], groups: int) -> Tensor:
        """So many rows at a time that what is gathered of them stays small."""
        step = max(1, min(AGAIN, self.raw.numel() // 8) // (groups * GROUP))
        rows = len(self.raw)
        return torch.cat([run(slice(start, min(start + step, rows))) for start in range(0, max(1, rows), step)])


def tiles(head: Head, raw: Tensor, observed: Tensor, here: slice, temperature: float, found: Tensor) -> Tiles:
    """From [3, rows, groups]: the largest logit z, sum e^(z - largest), sum (z - largest) e^(z - largest)."""
    high, mass, tilt = found
    peak = high.amax(-1)
    below = high - peak[:, None]
    scaled = below.exp()
    share = mass * scaled
    total = share.sum(-1)
    lean = (tilt * scaled + below.masked_fill(mass == 0, 0) * share).sum(-1)
    entropy = (total.log() - lean / total).clamp_min(0)
    return Tiles(here, observed, raw, high, share, peak, total, entropy, head, temperature)
