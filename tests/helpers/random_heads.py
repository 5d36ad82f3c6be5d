"""Random hidden states and heads, and their exact log-probabilities in float64."""

from typing import Any

import torch
from torch import Tensor

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.stats import TopKStats
from sgcd.learn.scoring.teacher import topk_observed_tail

HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.25},
    "soft cap": {"cap": 5.0},
    "all": {"bias": True, "scale": 1.7, "cap": 8.0},
}


def drawn(size: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float64, **how: Any) -> tuple[Tensor, Head]:
    """Hidden states and a head whose logits are like a language model's: spread over about 3, and peaked."""
    torch.manual_seed(seed)
    width = 48
    hidden = torch.randn(count, width, dtype=torch.float64)
    weight = torch.randn(size, width, dtype=torch.float64) * 3 / width**0.5
    hidden[:, :] += 2.0 * weight[torch.randint(0, size, (count,))] / 3
    bias = torch.randn(size, dtype=torch.float64).to(dtype) if how.pop("bias", False) else None
    return hidden.to(dtype), Head(weight.to(dtype), bias, **how)


def full(hidden: Tensor, head: Head, temperature: float) -> Tensor:
    """Log-probabilities of the whole vocabulary, in float64, from the same numbers."""
    z = hidden.double() @ head.weight.double().t()
    if head.bias is not None:
        z = z + head.bias.double()
    z = z * head.scale
    z = z if head.cap is None else head.cap * torch.tanh(z / head.cap)
    return (z / temperature).log_softmax(-1)


def observed_of(size: int, count: int) -> Tensor:
    return torch.randint(0, size, (count,), generator=torch.Generator().manual_seed(9))


def rest_of(logp: Tensor, ids: Tensor, observed: Tensor) -> Tensor:
    outside = logp.scatter(1, ids, -torch.inf).scatter(1, observed[:, None], -torch.inf)
    return outside.logsumexp(-1)


def outcomes(logp: Tensor, own: Tensor, rest: Tensor, top: TopKStats, observed: Tensor) -> Tensor:
    return topk_observed_tail(top.ids, observed, logp, own, rest)


def outcomes_of_top(top: TopKStats, observed: Tensor) -> Tensor:
    return topk_observed_tail(top.ids, observed, top.logprobs, top.observed_logprob, top.tail_logprob)


def in_full(logp: Tensor, ids: Tensor, observed: Tensor) -> Tensor:
    own = logp.gather(1, observed[:, None])[:, 0]
    return topk_observed_tail(ids, observed, logp.gather(1, ids), own, rest_of(logp, ids, observed))
