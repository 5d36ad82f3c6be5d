"""Two Triton kernels for CUDA: three statistics per group of columns from one read of each logit, and the gradient.

The module is imported only where Triton is installed. TRITON_INTERPRET=1 runs the same lines on a CPU, for the tests.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.block import LogitsInputs
from sgcd.learn.scoring.logits.cpu_block import GROUP

GROUPS = 32
"""Groups of columns that one program reads."""
COLUMNS = 4096
"""Columns whose gradient one program writes."""
WARPS = 8


def compute_group_stats(raw: Tensor, head: Head, temperature: float) -> Tensor:
    """[3, tokens, groups] from float32 products, for the logits z of each group.

    high = max z, mass = sum e^(z - high), tilt = sum (z - high) e^(z - high).
    A group whose logits are all -inf has neither mass nor tilt.
    """
    groups = -(-head.vocab_size // GROUP)
    stats = torch.empty(3, len(raw), groups, dtype=torch.float32, device=raw.device)
    if len(raw):
        grid = (len(raw), -(-groups // GROUPS))
        sizes = {"GROUP": GROUP, "GROUPS": GROUPS, "num_warps": WARPS}
        run: Any = _group_stats  # a Triton kernel takes its grid in brackets
        run[grid](raw, *stats, head.vocab_size, groups, raw.stride(0), *_cap_factors(head, temperature), **sizes)
    return stats


def write_logits_gradient_by_kernel(inputs: LogitsInputs, raw: Tensor, *, lse: Tensor, g: Tensor) -> None:
    """Overwrite the head's float32 product with the gradient of sum g log p(observed) with respect to it."""
    if len(raw):
        head = inputs.head
        grid = (len(raw), -(-head.vocab_size // COLUMNS))
        inner, outer, capped = _cap_factors(head, inputs.temperature)
        run: Any = _write_gradient
        run[grid](
            raw,
            inputs.observed.contiguous(),
            lse.contiguous(),
            g.float().contiguous(),
            head.vocab_size,
            raw.stride(0),
            inner,
            outer,
            head.scale / inputs.temperature,
            capped,
            COLUMNS=COLUMNS,
            num_warps=WARPS,
        )


def _cap_factors(head: Head, temperature: float) -> tuple[float, float, bool]:
    """z = outer tanh(inner raw) with a cap, outer raw without one."""
    if head.cap is None:
        return 1.0, head.scale / temperature, False
    return head.scale / head.cap, head.cap / temperature, True


@triton.jit
def _tanh(x):
    e = tl.exp(-2.0 * tl.abs(x))
    return tl.where(x < 0, e - 1.0, 1.0 - e) / (1.0 + e)


@triton.jit
def _group_stats(
    raw,
    high,
    mass,
    tilt,
    size,
    groups,
    stride,
    inner,
    outer,
    CAPPED: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)  # tokens times the vocabulary may exceed 32 bits
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    z = tl.load(raw + row * stride + column, mask=column < size, other=0.0)
    z = (_tanh(z * inner) if CAPPED else z) * outer
    z = tl.where(column < size, z, float("-inf"))
    top = tl.max(z, axis=1)
    below = z - tl.where(top == float("-inf"), 0.0, top)[:, None]
    e = tl.exp(below)
    to = row * groups + group
    tl.store(high + to, top, mask=group < groups)
    tl.store(mass + to, tl.sum(e, axis=1), mask=group < groups)
    tl.store(tilt + to, tl.sum(tl.where(below == float("-inf"), 0.0, below * e), axis=1), mask=group < groups)


@triton.jit
def _write_gradient(
    raw, observed, lse, g, size, stride, inner, outer, slope, CAPPED: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    at = raw + row * stride + column
    z = tl.load(at, mask=column < size, other=0.0)
    bent = _tanh(z * inner) if CAPPED else z
    upstream = tl.load(g + row)
    at_observed = tl.where(column == tl.load(observed + row), upstream, 0.0)
    gradient = (at_observed - upstream * tl.exp(bent * outer - tl.load(lse + row))) * slope
    gradient = gradient * (1.0 - bent * bent) if CAPPED else gradient
    tl.store(at, gradient, mask=column < size)
