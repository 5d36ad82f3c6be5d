"""Statistics of a block of logits on a CPU, in few passes while the block is in the processor's cache."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.learn.scoring.logits.block import LogitsInputs

_MAX_DOT_ROWS = 8
"""Up to so many tokens, entropy takes one dot product per token; for more, `vecdot`."""
GROUP = 128
"""Columns of a group. The K largest logits are in the K groups with the largest maxima."""
_NUM_EXACT_LOGITS = 64
"""The largest logits of a token, which are computed again exactly where the product is below float32."""
_NUM_SPARE_CANDIDATES = 12
"""Candidates beyond K that are computed again exactly before the K largest are chosen."""


@dataclass(slots=True)
class CpuLogitsBlock:
    """A `LogitsBlock` in full; its buffers are used again for the next block."""

    token_slice: slice
    inputs: LogitsInputs
    """Of this block's tokens."""
    logits: Tensor
    """[tokens, vocabulary], divided by the temperature, at least float32."""
    probs: Tensor
    """[tokens, vocabulary]: probabilities times `prob_sum`."""
    prob_sum: Tensor
    logsumexp: Tensor
    recomputed_ids: Tensor
    """Ids whose logits were computed again exactly, because the product was below float32; the observed id was too."""

    @property
    def is_exact(self) -> bool:
        """Whether the product has at least float32."""
        return not self.recomputed_ids.shape[-1]

    @property
    def observed_logprob(self) -> Tensor:
        """log p of the observed id."""
        return self.logits.gather(1, self.inputs.observed[:, None])[:, 0] - self.logsumexp

    @property
    def entropy(self) -> Tensor:
        """Over the whole vocabulary: LSE - sum p z."""
        if 0 < len(self.logits) <= _MAX_DOT_ROWS:
            mean = torch.stack([torch.dot(p, z) for p, z in zip(self.probs, self.logits, strict=True)])
        else:
            mean = torch.linalg.vecdot(self.probs, self.logits)
        return (self.logsumexp - mean / self.prob_sum).clamp_min(0)

    def top_k(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and `logprobs_at` of these ids."""
        k = min(k, self.logits.shape[-1])
        if self.is_exact:
            ids = largest_ids(self.logits, k)
            return ids, *self._logprobs_at(ids, self.logits.gather(1, ids))
        candidates = self.recomputed_ids
        if k + _NUM_SPARE_CANDIDATES > candidates.shape[-1]:
            candidates = (
                largest_ids_unordered(self.logits, min(k + _NUM_SPARE_CANDIDATES, self.logits.shape[-1]))
                .sort(-1)
                .values
            )
            logits = self._logits_at(candidates)
        else:
            logits = self.logits.gather(1, candidates)
        chosen = top_ids(logits, k)
        ids = candidates.gather(1, chosen)
        return ids, *self._logprobs_at(ids, logits.gather(1, chosen))

    def logprobs_at(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log p at `ids` [tokens, K], and of the tail: all ids but these and the observed one, summed directly."""
        return self._logprobs_at(ids, self._logits_at(ids))

    def _logprobs_at(self, ids: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        excluded_ids = torch.cat([ids, self.inputs.observed[:, None]], dim=1)
        saved_probs = self.probs.gather(1, excluded_ids)
        self.probs.scatter_(1, excluded_ids, 0)
        tail_logprob = (self.probs.sum(-1) / self.prob_sum).log()
        self.probs.scatter_(1, excluded_ids, saved_probs)
        return logits - self.logsumexp[:, None], tail_logprob

    def _logits_at(self, ids: Tensor) -> Tensor:
        if self.is_exact:
            return self.logits.gather(1, ids)
        return self.inputs.head.logits_at(self.inputs.hidden, ids, self.inputs.temperature)


def build_cpu_block(
    inputs: LogitsInputs, token_slice: slice, raw: Tensor, *, logits_out: Tensor, probs_out: Tensor
) -> CpuLogitsBlock:
    """From the head's product `raw` with the tokens of `inputs`, in the two buffers."""
    head, observed = inputs.head, inputs.observed
    logits = head.to_logits(raw, inputs.temperature, logits_out)
    recomputed_ids = observed[:, None][:, :0]
    if raw.dtype in (torch.float32, torch.float64):
        row_max = logits.amax(-1)
    else:  # the largest logits decide the sum, so they are computed again
        recomputed_ids = largest_ids_unordered(logits, min(_NUM_EXACT_LOGITS, head.vocab_size)).sort(-1).values
        exact_ids = torch.cat([recomputed_ids, observed[:, None]], dim=1)
        exact_logits = head.logits_at(inputs.hidden, exact_ids, inputs.temperature)
        logits.scatter_(1, exact_ids, exact_logits)
        row_max = exact_logits.amax(-1)
    shift = row_max * math.log2(math.e)
    exp_shifted(logits, shift, probs_out)
    prob_sum = probs_out.sum(-1)
    lse = (shift.double() * math.log(2) + prob_sum.double().log()).to(logits.dtype)
    return CpuLogitsBlock(token_slice, inputs, logits, probs_out, prob_sum, lse, recomputed_ids)


def exp_shifted(z: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """exp(z) / 2^shift for each row: torch computes powers of two faster than powers of e."""
    return torch.add(-shift[:, None], z, alpha=math.log2(math.e), out=out).exp2_()


def largest_ids(z: Tensor, k: int) -> Tensor:
    """`top_ids` in two stages: first the groups of columns with the largest maxima, then the ids inside them."""
    groups = z.shape[-1] // GROUP
    if groups <= 2 * k:
        return top_ids(z, k)
    num_grouped = groups * GROUP
    grouped = z[:, :num_grouped].unflatten(1, (groups, GROUP))
    best_groups = top_ids(grouped.amax(-1), k)
    columns = (best_groups[:, :, None] * GROUP + torch.arange(GROUP, device=z.device)).flatten(1)
    if num_grouped < z.shape[-1]:
        remainder = torch.arange(num_grouped, z.shape[-1], device=z.device).expand(len(z), -1)
        columns = torch.cat([columns, remainder], dim=1)
    return columns.gather(1, top_ids(z.gather(1, columns), k))


def largest_ids_unordered(z: Tensor, k: int) -> Tensor:
    """Like `largest_ids`, in any order, and with any of equal logits."""
    groups = z.shape[-1] // GROUP
    if groups <= 2 * k or z.shape[-1] % GROUP:
        return z.topk(k, sorted=False).indices
    grouped = z.unflatten(1, (groups, GROUP))
    best_groups = grouped.amax(-1).topk(k, sorted=False).indices
    best_columns = (
        grouped.gather(1, best_groups[:, :, None].expand(-1, -1, GROUP)).flatten(1).topk(k, sorted=False).indices
    )
    return best_groups.gather(1, best_columns // GROUP) * GROUP + best_columns % GROUP
