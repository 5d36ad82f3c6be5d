"""What a block says, from three numbers for each group of columns: all logits are read once, and few of them again."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.cpu_block import GROUP

_MAX_GATHERED_LOGITS = 2**22
"""Logits that are gathered at a time."""


@dataclass(slots=True)
class CudaLogitsBlock:
    """Some rows of logits and their statistics."""

    token_slice: slice
    """Which rows."""
    observed: Tensor
    raw_logits: Tensor
    """[rows, vocabulary]: the head's product; it is not changed."""
    group_max: Tensor
    """[rows, groups]: the largest logit, over the temperature."""
    group_sum: Tensor
    """[rows, groups]: sum of exp(z - peak)."""
    row_max: Tensor
    row_sum: Tensor
    """Sum of exp(z - peak) over the whole row."""
    entropy: Tensor
    """Of the whole vocabulary."""
    head: Head
    temperature: float

    @property
    def logsumexp(self) -> Tensor:
        return self.row_max + self.row_sum.log()

    @property
    def observed_logprob(self) -> Tensor:
        """log p of the observed id."""
        return self._logits_at(self.raw_logits, self.observed[:, None])[:, 0] - self.logsumexp

    def top_k(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and what `at` says of them."""
        k = min(k, self.head.vocab_size)
        ids = self._gather_in_chunks(lambda rows: self._top_k_ids(rows, k), min(k, self.group_max.shape[1]))
        return ids, *self.logprobs_at(ids)

    def logprobs_at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids`, and of everything that is neither there nor the observed id, summed where it stands."""
        excluded_ids = torch.cat([ids, self.observed[:, None]], dim=1)
        tail_sum = self._gather_in_chunks(lambda rows: self._tail_sum(rows, excluded_ids[rows]), excluded_ids.shape[1])
        return self._logits_at(self.raw_logits, ids) - self.logsumexp[:, None], (tail_sum / self.row_sum).log()

    def _top_k_ids(self, rows: slice, k: int) -> Tensor:
        """The K groups with the largest maxima, then the K largest of these."""
        columns = self._group_columns(top_ids(self.group_max[rows], k)).flatten(1)
        return columns.gather(1, top_ids(self._logits_in_columns(rows, columns), k))

    def _tail_sum(self, rows: slice, excluded_ids: Tensor) -> Tensor:
        """Groups that hold none of `taken` as they are; of the others what is not taken, each of them once."""
        groups = excluded_ids // GROUP
        untouched = self.group_sum[rows].scatter(1, groups, 0).sum(-1)
        order = groups.sort(-1).values
        is_repeated = order[:, 1:] == order[:, :-1]
        group_logits = self._logits_in_columns(rows, self._group_columns(order).flatten(1))
        exp_logits = group_logits.sub_(self.row_max[rows, None]).exp_().unflatten(1, (-1, GROUP))
        exp_logits[:, 1:].masked_fill_(is_repeated[:, :, None], 0)
        slot = torch.searchsorted(order, groups) * GROUP + excluded_ids % GROUP
        return untouched + exp_logits.flatten(1).scatter_(1, slot, 0).sum(-1)

    def _group_columns(self, groups: Tensor) -> Tensor:
        return groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)

    def _logits_in_columns(self, rows: slice, columns: Tensor) -> Tensor:
        """Logits; -inf beyond the vocabulary's end, in the last group."""
        last = self.head.vocab_size - 1
        return self._logits_at(self.raw_logits[rows], columns.clamp(max=last)).masked_fill(columns > last, -torch.inf)

    def _logits_at(self, raw: Tensor, ids: Tensor) -> Tensor:
        gathered = raw.gather(1, ids)
        return self.head.to_logits(gathered, self.temperature, gathered)

    def _gather_in_chunks(self, gather: Callable[[slice], Tensor], groups_per_row: int) -> Tensor:
        """So many rows at a time that what is gathered of them stays small."""
        chunk_rows = max(1, min(_MAX_GATHERED_LOGITS, self.raw_logits.numel() // 8) // (groups_per_row * GROUP))
        num_rows = len(self.raw_logits)
        return torch.cat(
            [
                gather(slice(start, min(start + chunk_rows, num_rows)))
                for start in range(0, max(1, num_rows), chunk_rows)
            ]
        )


def build_cuda_block(
    head: Head, raw: Tensor, observed: Tensor, token_slice: slice, temperature: float, group_stats: Tensor
) -> CudaLogitsBlock:
    """From [3, rows, groups]: the largest logit z, sum e^(z - largest), sum (z - largest) e^(z - largest)."""
    group_max, group_mass, tilt = group_stats
    row_max = group_max.amax(-1)
    offset = group_max - row_max[:, None]
    scaled = offset.exp()
    group_sum = group_mass * scaled
    row_sum = group_sum.sum(-1)
    mean_offset_sum = (tilt * scaled + offset.masked_fill(group_mass == 0, 0) * group_sum).sum(-1)
    entropy = (row_sum.log() - mean_offset_sum / row_sum).clamp_min(0)
    return CudaLogitsBlock(
        token_slice, observed, raw, group_max, group_sum, row_max, row_sum, entropy, head, temperature
    )
