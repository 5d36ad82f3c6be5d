"""From logits to sampled ids: each rollout has a stream of uniforms of its own, one for each token."""

import numpy as np
import torch
from torch import Tensor

from sgcd.errors import PolicyError

BLOCK = 64


class Uniforms:
    """A rollout's own stream of uniforms in [0, 1); the k-th belongs to its k-th sampled token."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._block: list[float] = []

    def next(self) -> float:
        if not self._block:
            self._block = self._generator.random(BLOCK)[::-1].tolist()
        return self._block.pop()


def draw(
    logits: Tensor, uniforms: list[float], temperatures: list[float], top_p: float
) -> tuple[list[int], list[float]]:
    """One id for each row of `logits`, and its log-probability at the row's temperature, before top_p.

    The id is the inverse of the cumulative distribution at the row's uniform, in float64 and in the order of ids. At
    temperature 0 it is the likeliest id (of equals the lowest), and its log-probability is the one at temperature 1.
    """
    heat = torch.tensor([t or 1.0 for t in temperatures], dtype=torch.float64, device=logits.device)
    logp = torch.log_softmax(logits.double() / heat[:, None], dim=-1)
    p = logp.exp()
    cumulated = (p if top_p == 1.0 else nucleus(p, top_p)).cumsum(dim=-1)
    total = cumulated[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise PolicyError("sampler: the policy's logits are not finite; its weights have diverged or are damaged")
    u = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None]
    # Just below the total, so that rounding never leads past the last id that has any probability.
    point = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    ids = torch.searchsorted(cumulated, point, right=True)
    if 0.0 in temperatures:
        greedy = torch.tensor([t == 0.0 for t in temperatures], device=logits.device)[:, None]
        ids = torch.where(greedy, logits.argmax(dim=-1, keepdim=True), ids)
    return ids[:, 0].tolist(), logp.gather(-1, ids)[:, 0].tolist()


def nucleus(p: Tensor, top_p: float) -> Tensor:
    """Zero all but the likeliest ids, the fewest whose probabilities reach `top_p`."""
    ordered, order = p.sort(dim=-1, descending=True, stable=True)
    likelier = torch.nn.functional.pad(ordered.cumsum(dim=-1)[:, :-1], (1, 0))
    beyond = likelier >= top_p
    return p.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
