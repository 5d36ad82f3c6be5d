"""Some rows of logits and all that is asked of them, in few passes while they are in the processor's cache."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.credit.divergence import top_ids
from sgcd.learn.policy.head import Head

_MAX_DOT_ROWS = 8
"""Rows that are so long that each is multiplied by itself."""
GROUP = 128
"""Columns of which the maximum is taken first; the K largest logits lie in the K groups with the largest maxima."""
_NUM_EXACT_LOGITS = 64
"""Logits of a row that are computed again exactly where the product's are below float32."""
_NUM_SPARE_CANDIDATES = 12
"""Candidates beyond K that are computed again before the K largest are chosen."""


@dataclass(slots=True)
class CpuLogitsBlock:
    """Some rows of logits and their statistics; the buffers behind it are used again for the next block."""

    token_slice: slice
    """Which rows."""
    hidden: Tensor
    observed: Tensor
    logits: Tensor
    """[rows, vocabulary], over the temperature, at least float32."""
    probs: Tensor
    """Probabilities, but for a factor `mass`."""
    prob_sum: Tensor
    logsumexp: Tensor
    recomputed_ids: Tensor
    """Where the product was below float32: ids at which z was computed again, as it was at the observed one."""
    head: Head
    temperature: float

    @property
    def is_exact(self) -> bool:
        return not self.recomputed_ids.shape[-1]

    @property
    def observed_logprob(self) -> Tensor:
        """log p of the observed id."""
        return self.logits.gather(1, self.observed[:, None])[:, 0] - self.logsumexp

    @property
    def entropy(self) -> Tensor:
        """Of the whole vocabulary: LSE - sum p z."""
        if 0 < len(self.logits) <= _MAX_DOT_ROWS:
            mean = torch.stack([torch.dot(p, z) for p, z in zip(self.probs, self.logits, strict=True)])
        else:
            mean = torch.linalg.vecdot(self.probs, self.logits)
        return (self.logsumexp - mean / self.prob_sum).clamp_min(0)

    def top_k(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of the K largest logits, ascending, ties to the lower id; and what `at` says of them."""
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
        """log p at `ids`, and of everything that is neither there nor the observed id, summed where it stands."""
        return self._logprobs_at(ids, self._logits_at(ids))

    def _logprobs_at(self, ids: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        excluded_ids = torch.cat([ids, self.observed[:, None]], dim=1)
        saved_probs = self.probs.gather(1, excluded_ids)
        self.probs.scatter_(1, excluded_ids, 0)
        tail_logprob = (self.probs.sum(-1) / self.prob_sum).log()
        self.probs.scatter_(1, excluded_ids, saved_probs)
        return logits - self.logsumexp[:, None], tail_logprob

    def _logits_at(self, ids: Tensor) -> Tensor:
        return self.logits.gather(1, ids) if self.is_exact else self.head.logits_at(self.hidden, ids, self.temperature)


def build_cpu_block(
    head: Head,
    hidden: Tensor,
    observed: Tensor,
    z: Tensor,
    p: Tensor,
    dtype: torch.dtype,
    token_slice: slice,
    temperature: float,
) -> CpuLogitsBlock:
    """The rows `z`, whose product was of type `dtype`; `p` is where the probabilities go."""
    recomputed_ids = observed[:, None][:, :0]
    if dtype in (torch.float32, torch.float64):
        row_max = z.amax(-1)
    else:  # what decides the sum is computed again
        recomputed_ids = largest_ids_unordered(z, min(_NUM_EXACT_LOGITS, head.vocab_size)).sort(-1).values
        exact_ids = torch.cat([recomputed_ids, observed[:, None]], dim=1)
        logits = head.logits_at(hidden, exact_ids, temperature)
        z.scatter_(1, exact_ids, logits)
        row_max = logits.amax(-1)
    shift = row_max * math.log2(math.e)
    exp_shifted(z, shift, p)
    prob_sum = p.sum(-1)
    lse = (shift.double() * math.log(2) + prob_sum.double().log()).to(z.dtype)
    return CpuLogitsBlock(token_slice, hidden, observed, z, p, prob_sum, lse, recomputed_ids, head, temperature)


def exp_shifted(z: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """exp(z), each row divided by two to the power of its `shift`: torch has a faster power of two than of e."""
    return torch.add(-shift[:, None], z, alpha=math.log2(math.e), out=out).exp2_()


def largest_ids(z: Tensor, k: int) -> Tensor:
    """`top_ids` in two stages: the best groups of columns first, then inside these."""
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
    """The same in no order, and among equals any of them."""
    groups = z.shape[-1] // GROUP
    if groups <= 2 * k or z.shape[-1] % GROUP:
        return z.topk(k, sorted=False).indices
    grouped = z.unflatten(1, (groups, GROUP))
    best_groups = grouped.amax(-1).topk(k, sorted=False).indices
    best_columns = (
        grouped.gather(1, best_groups[:, :, None].expand(-1, -1, GROUP)).flatten(1).topk(k, sorted=False).indices
    )
    return best_groups.gather(1, best_columns // GROUP) * GROUP + best_columns % GROUP
