"""Statistics of a block of logits on CUDA: the kernel reads all logits once, and this reads few of them again."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.learn.scoring.logits.block import LogitsInputs
from sgcd.learn.scoring.logits.cpu_block import GROUP

_MAX_GATHERED_LOGITS = 2**22
"""Logits that are gathered at once."""


@dataclass(slots=True)
class CudaLogitsBlock:
    """A `LogitsBlock` as the head's product and two numbers per group of columns."""

    token_slice: slice
    inputs: LogitsInputs
    """Of this block's tokens."""
    raw_logits: Tensor
    """[tokens, vocabulary]: the head's product; it is not changed."""
    group_max: Tensor
    """[tokens, groups]: the largest logit, divided by the temperature."""
    group_sum: Tensor
    """[tokens, groups]: sum of exp(z - row_max)."""
    row_max: Tensor
    row_sum: Tensor
    """Sum of exp(z - row_max) over the whole vocabulary."""
    entropy: Tensor
    """Over the whole vocabulary."""

    @property
    def logsumexp(self) -> Tensor:
        return self.row_max + self.row_sum.log()

    @property
    def observed_logprob(self) -> Tensor:
        """log p of the observed id."""
        return self._logits_at(self.raw_logits, self.inputs.observed[:, None])[:, 0] - self.logsumexp

    def top_k(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and `logprobs_at` of these ids."""
        k = min(k, self.inputs.head.vocab_size)
        ids = self._gather_in_chunks(lambda rows: self._top_k_ids(rows, k), min(k, self.group_max.shape[1]))
        return ids, *self.logprobs_at(ids)

    def logprobs_at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids` [tokens, K], and of the tail: all ids but these and the observed one, summed directly."""
        excluded_ids = torch.cat([ids, self.inputs.observed[:, None]], dim=1)
        tail_sum = self._gather_in_chunks(lambda rows: self._tail_sum(rows, excluded_ids[rows]), excluded_ids.shape[1])
        return self._logits_at(self.raw_logits, ids) - self.logsumexp[:, None], (tail_sum / self.row_sum).log()

    def _top_k_ids(self, rows: slice, k: int) -> Tensor:
        """The K largest logits of the K groups with the largest maxima."""
        columns = self._group_columns(top_ids(self.group_max[rows], k)).flatten(1)
        return columns.gather(1, top_ids(self._logits_in_columns(rows, columns), k))

    def _tail_sum(self, rows: slice, excluded_ids: Tensor) -> Tensor:
        """The sums of groups without an excluded id, and the other logits of each group that has one."""
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
        """Logits; -inf beyond the end of the vocabulary, in the last group."""
        last = self.inputs.head.vocab_size - 1
        return self._logits_at(self.raw_logits[rows], columns.clamp(max=last)).masked_fill(columns > last, -torch.inf)

    def _logits_at(self, raw: Tensor, ids: Tensor) -> Tensor:
        gathered = raw.gather(1, ids)
        return self.inputs.head.to_logits(gathered, self.inputs.temperature, gathered)

    def _gather_in_chunks(self, gather: Callable[[slice], Tensor], groups_per_row: int) -> Tensor:
        """Gather for few tokens at a time, so that the gathered logits stay small."""
        chunk_rows = max(1, min(_MAX_GATHERED_LOGITS, self.raw_logits.numel() // 8) // (groups_per_row * GROUP))
        num_rows = len(self.raw_logits)
        return torch.cat(
            [
                gather(slice(start, min(start + chunk_rows, num_rows)))
                for start in range(0, max(1, num_rows), chunk_rows)
            ]
        )


def build_cuda_block(inputs: LogitsInputs, token_slice: slice, raw: Tensor, *, group_stats: Tensor) -> CudaLogitsBlock:
    """From [3, tokens, groups]: the largest logit z, sum e^(z - largest), sum (z - largest) e^(z - largest)."""
    group_max, group_mass, tilt = group_stats
    row_max = group_max.amax(-1)
    offset = group_max - row_max[:, None]
    scaled = offset.exp()
    group_sum = group_mass * scaled
    row_sum = group_sum.sum(-1)
    mean_offset_sum = (tilt * scaled + offset.masked_fill(group_mass == 0, 0) * group_sum).sum(-1)
    entropy = (row_sum.log() - mean_offset_sum / row_sum).clamp_min(0)
    return CudaLogitsBlock(token_slice, inputs, raw, group_max, group_sum, row_max, row_sum, entropy)
