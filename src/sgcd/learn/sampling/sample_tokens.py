"""Samples ids from logits; each rollout has its own stream of uniforms, one per token."""

import numpy as np
import torch
from torch import Tensor

from sgcd.errors import PolicyError

_BUFFERED_UNIFORMS = 64


class UniformStream:
    """The uniforms in [0, 1) of one rollout; the k-th belongs to its k-th sampled token."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._buffer: list[float] = []

    def next(self) -> float:
        value = self.peek(1)[0]
        self._buffer.pop()
        return value

    def peek(self, count: int) -> list[float]:
        """The next `count` uniforms, which stay in the stream."""
        while len(self._buffer) < count:
            self._buffer = self._generator.random(_BUFFERED_UNIFORMS)[::-1].tolist() + self._buffer
        return self._buffer[: -count - 1 : -1]


def sample_tokens(
    logits: Tensor, uniforms: list[float], temperatures: list[float], *, top_p: float
) -> tuple[list[int], list[float]]:
    """Sample one id per row of `logits`; return its log-probability at the row's temperature, before top_p.

    The id is the inverse of the cumulative distribution at the row's uniform, in float64 and in the order of ids. At
    temperature 0 it is the likeliest id (the lowest of equals), and its log-probability is that at temperature 1.
    """
    divisors = torch.tensor(
        [temperature or 1.0 for temperature in temperatures], dtype=torch.float64, device=logits.device
    )
    logprobs = torch.log_softmax(logits.double() / divisors[:, None], dim=-1)
    probs = logprobs.exp()
    cumulative = (probs if top_p == 1.0 else keep_top_p(probs, top_p)).cumsum(dim=-1)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise PolicyError("sampler: the policy's logits are not finite; its weights have diverged or are damaged")
    uniform = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None]
    # Just below the total, so that rounding never leads past the last id with a probability.
    threshold = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    ids = torch.searchsorted(cumulative, threshold, right=True)
    if 0.0 in temperatures:
        greedy = torch.tensor([temperature == 0.0 for temperature in temperatures], device=logits.device)[:, None]
        ids = torch.where(greedy, logits.argmax(dim=-1, keepdim=True), ids)
    return ids[:, 0].tolist(), logprobs.gather(-1, ids)[:, 0].tolist()


def keep_top_p(probs: Tensor, top_p: float) -> Tensor:
    """Keep the fewest likeliest ids whose probabilities reach `top_p`; set the others to zero."""
    sorted_probs, order = probs.sort(dim=-1, descending=True, stable=True)
    mass_before = torch.nn.functional.pad(sorted_probs.cumsum(dim=-1)[:, :-1], (1, 0))
    is_dropped = mass_before >= top_p
    return probs.masked_fill(torch.zeros_like(is_dropped).scatter(-1, order, is_dropped), 0.0)
