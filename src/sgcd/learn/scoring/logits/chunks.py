"""Rows of logits, a budget of memory at a time: a product with the head, then its statistics while they are in cache.

A product with some hundred rows at once is fast; statistics are fast on a few rows that stay in the processor's cache.
So a chunk of logits is made at a time, and looked at block by block. Nothing of the size [tokens, vocabulary] is kept.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from logging import getLogger

import torch
from torch import Tensor

from sgcd.errors import RecipeError
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.cpu_block import CpuLogitsBlock, build_cpu_block
from sgcd.learn.scoring.logits.cuda_block import CudaLogitsBlock, build_cuda_block

_log = getLogger(__name__)

LOGITS_BYTES = 2**30
"""Bytes for logits and what is made of them, unless told otherwise."""
_CPU_PRODUCT_ROWS = 256
"""Rows of a product on a CPU: more are no faster."""
_PRODUCT_RESERVE = 8
"""The part of a budget that is left to what a product takes for itself: one in so many."""
_CPU_BLOCK_LOGITS = 2**20
"""Logits that are looked at together on a CPU: about what stays in its cache."""


def iter_logits_blocks(
    head: Head,
    hidden: Tensor,
    observed: Tensor,
    temperature: float,
    logits_bytes: int = LOGITS_BYTES,
    product_out: Tensor | None = None,
) -> Iterator[CpuLogitsBlock | CudaLogitsBlock]:
    """All rows in order, at least one block, if an empty one.

    With `kept` [rows, vocabulary] the products stay there, as they came from the head.
    """
    product_rows, block_rows, stats_dtype = chunk_sizes(head, hidden, logits_bytes)
    product_buffer = None if product_out is not None else allocate_product(head, hidden, min(product_rows, len(hidden)))
    use_kernel = uses_kernel(hidden)
    block_buffers = torch.empty(
        2, 0 if use_kernel else min(block_rows, len(hidden)), head.vocab_size, dtype=stats_dtype, device=hidden.device
    )
    for start in range(0, max(1, len(hidden)), product_rows):
        token_slice = slice(start, min(start + product_rows, len(hidden)))
        raw = product_out[token_slice] if product_out is not None else product_buffer[: token_slice.stop - start]  # type: ignore[index]
        head.project(hidden[token_slice], raw)
        if use_kernel:
            yield read_cuda_block(head, raw, observed[token_slice], token_slice, temperature)
        else:
            yield from iter_cpu_blocks(head, hidden, observed, raw, start, temperature, block_buffers)


def read_cuda_block(
    head: Head, raw: Tensor, observed: Tensor, token_slice: slice, temperature: float
) -> CudaLogitsBlock:
    from sgcd.learn.scoring.logits.triton_kernel import compute_group_stats

    return build_cuda_block(head, raw, observed, token_slice, temperature, compute_group_stats(raw, head, temperature))


def iter_cpu_blocks(
    head: Head, hidden: Tensor, observed: Tensor, raw: Tensor, start: int, temperature: float, block_buffers: Tensor
) -> Iterator[CpuLogitsBlock]:
    """The rows of one product, which begin at `start`, in buffers for so many that they stay in cache."""
    block_rows = max(1, block_buffers.shape[1])
    for offset in range(0, max(1, len(raw)), block_rows):
        raw_part = raw[offset : offset + block_rows]
        token_slice = slice(start + offset, start + offset + len(raw_part))
        logits = head.to_logits(raw_part, temperature, block_buffers[0, : len(raw_part)])
        yield build_cpu_block(
            head,
            hidden[token_slice],
            observed[token_slice],
            logits,
            block_buffers[1, : len(raw_part)],
            raw_part.dtype,
            token_slice,
            temperature,
        )


def uses_kernel(hidden: Tensor) -> bool:
    """Whether logits are read once, by the kernel."""
    return hidden.is_cuda and hidden.dtype != torch.float64 and is_kernel_available(hidden.device)


@cache
def is_kernel_available(device: torch.device) -> bool:
    """Whether the kernel runs here: Triton has to be there, and a C compiler for it. Asked once."""
    if find_spec("triton") is None:
        return False
    from sgcd.learn.scoring.logits.triton_kernel import compute_group_stats

    try:
        compute_group_stats(torch.zeros(1, 1, device=device), Head(torch.zeros(1, 1, device=device)), 1.0)
    except Exception as problem:
        _log.warning("the kernel for CUDA does not run here (%s): logits are read by torch alone, more slowly", problem)
        return False
    return True


def allocate_product(head: Head, hidden: Tensor, num_rows: int) -> Tensor:
    """Where a product with the head goes."""
    return torch.empty(num_rows, head.vocab_size, dtype=product_dtype(hidden), device=hidden.device)


def product_dtype(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32) if hidden.is_cuda else hidden.dtype


def chunk_sizes(head: Head, hidden: Tensor, logits_bytes: int) -> tuple[int, int, torch.dtype]:
    """Rows of a product, rows of a block, and the type of statistics, within `room` bytes."""
    stats_dtype = torch.promote_types(hidden.dtype, torch.float32)
    row_bytes = head.vocab_size * stats_dtype.itemsize
    check_logits_bytes(head.vocab_size, logits_bytes, stats_dtype.itemsize)
    if uses_kernel(hidden):  # nothing else is as large as the product
        product_rows = max(1, logits_bytes // (2 * row_bytes))
        return product_rows, product_rows, stats_dtype
    block_rows = max(
        1,
        min(
            _CPU_BLOCK_LOGITS // head.vocab_size if not hidden.is_cuda else logits_bytes,
            logits_bytes // (6 * row_bytes),
        ),
    )
    product_rows = max(
        1,
        (logits_bytes - logits_bytes // _PRODUCT_RESERVE - 3 * block_rows * row_bytes)
        // (head.vocab_size * product_dtype(hidden).itemsize),
    )
    if not hidden.is_cuda:
        product_rows = min(product_rows, max(_CPU_PRODUCT_ROWS, _CPU_BLOCK_LOGITS // head.vocab_size))
    return product_rows, min(block_rows, product_rows), stats_dtype


def check_logits_bytes(vocab_size: int, logits_bytes: int, itemsize: int = 4) -> None:
    """Refuse a budget that does not hold one row and its statistics."""
    if logits_bytes < 3 * vocab_size * itemsize:
        raise RecipeError(
            f"scoring.logits_bytes: {logits_bytes:,} do not hold one row of logits; a vocabulary of "
            f"{vocab_size:,} needs at least {3 * vocab_size * itemsize:,}"
        )
