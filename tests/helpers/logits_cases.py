"""Logits of several kinds, their group statistics by torch, and exact values to compare with."""

from typing import Any

import torch
from torch import Tensor

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.block import LogitsInputs
from sgcd.learn.scoring.logits.cpu_block import GROUP
from sgcd.learn.scoring.logits.cuda_block import CudaLogitsBlock, build_cuda_block

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def logits(size: int, rows: int, seed: int, kind: str = "plain") -> Tensor:
    raw = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3
    if kind == "ties":
        raw = (raw * 2).round() / 2
    elif kind == "peaked":
        raw[:, size // 3] += 40
    elif kind == "holes":
        raw[torch.rand(rows, size, generator=torch.Generator().manual_seed(seed + 1)) < 0.5] = -torch.inf
        raw[:, size // 2] = 1.0
    elif kind == "far":
        raw += 300
    return raw.to(DEVICE)


def logits_head(size: int, **fields: Any) -> Head:
    """A head that is used only after its product: scale, soft cap and temperature."""
    return Head(torch.zeros(size, 1, device=DEVICE), **fields)


def scale_logits(head: Head, raw: Tensor, temperature: float) -> Tensor:
    z = raw.double() * head.scale
    return (z if head.cap is None else head.cap * torch.tanh(z / head.cap)) / temperature


def group_stats_by_torch(raw: Tensor, head: Head, temperature: float) -> Tensor:
    """The group statistics that the kernel must return."""
    z = scale_logits(head, raw, temperature)
    short = -z.shape[1] % GROUP
    z = torch.nn.functional.pad(z, (0, short), value=-torch.inf).unflatten(1, (-1, GROUP))
    high = z.amax(-1)
    below = z - high.masked_fill(high == -torch.inf, 0)[..., None]
    tilt = (below.masked_fill(below == -torch.inf, 0) * below.exp()).sum(-1)
    return torch.stack([high, below.exp().sum(-1), tilt])


def build_block(raw: Tensor, head: Head, observed: Tensor, temperature: float, group_stats: Tensor) -> CudaLogitsBlock:
    return build_cuda_block(
        LogitsInputs(raw[:, :0], head, observed, temperature), slice(0, len(raw)), raw, group_stats=group_stats
    )


def tail_logprob(logp: Tensor, ids: Tensor, observed: Tensor) -> Tensor:
    outside = logp.scatter(1, ids, -torch.inf).scatter(1, observed[:, None], -torch.inf)
    return outside.logsumexp(-1)


def check_block(block: CudaLogitsBlock, raw: Tensor, k: int, tolerance: float = 1e-5) -> None:
    """Compare all statistics of a block with float64 over the whole vocabulary."""
    observed = block.inputs.observed
    z = scale_logits(block.inputs.head, raw, block.inputs.temperature)
    logp = z.log_softmax(-1)
    ids, top, rest = block.top_k(k)
    k = min(k, raw.shape[1])
    order = raw.double().sort(dim=-1, descending=True, stable=True).indices[:, :k].sort(-1).values
    assert torch.equal(ids, order)
    assert_close(top, logp.gather(1, ids), tolerance)
    assert_close(rest.exp(), tail_logprob(logp, ids, observed).exp(), tolerance)
    assert_close(rest, tail_logprob(logp, ids, observed), 10 * tolerance)
    assert_close(block.observed_logprob, logp.gather(1, observed[:, None])[:, 0], tolerance)
    assert_close(block.logsumexp, z.logsumexp(-1), tolerance)
    assert_close(block.entropy, -(logp.exp() * logp.masked_fill(logp == -torch.inf, 0)).sum(-1), tolerance)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance, equal_nan=True)
