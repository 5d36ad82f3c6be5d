"""Reads the logits of many tokens within a budget of memory: chunk by chunk, block by block.

A product with the head is fast for some hundred tokens at once. On a CPU, statistics are fast for the few tokens whose
logits stay in the cache. So one chunk of products is computed at a time and read in blocks. A tensor of the size
[tokens, vocabulary] never exists.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from logging import getLogger
from typing import NamedTuple

import torch
from torch import Tensor

from sgcd.errors import RecipeError
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.block import LogitsBlock, LogitsInputs
from sgcd.learn.scoring.logits.cpu_block import CpuLogitsBlock, build_cpu_block
from sgcd.learn.scoring.logits.cuda_block import build_cuda_block

_log = getLogger(__name__)

LOGITS_BYTES = 2**30
"""The default budget: bytes for logits and the tensors that are made of them."""
_CPU_PRODUCT_ROWS = 256
"""Tokens of a product on a CPU: more are no faster."""
_PRODUCT_RESERVE = 8
"""One part in eight of a budget is left for the workspace of the product itself."""
_CPU_BLOCK_LOGITS = 2**20
"""Logits of a block on a CPU: about as many as stay in its cache."""


class ChunkSizes(NamedTuple):
    """How logits are read within a budget."""

    product_rows: int
    """Tokens of one product with the head."""
    block_rows: int
    """Tokens of one block."""
    stats_dtype: torch.dtype
    use_kernel: bool
    """Whether the Triton kernel reads the logits, or torch."""


def iter_logits_blocks(
    inputs: LogitsInputs, logits_bytes: int = LOGITS_BYTES, product_out: Tensor | None = None
) -> Iterator[LogitsBlock]:
    """Yields blocks of logits that cover all tokens in order; without tokens, one empty block.

    `product_out` [tokens, vocabulary] keeps the head's products for the backward pass.
    """
    sizes = chunk_sizes(inputs.head, inputs.hidden, logits_bytes)
    buffer_rows = 0 if sizes.use_kernel else min(sizes.block_rows, len(inputs.hidden))
    block_buffers = torch.empty(
        2, buffer_rows, inputs.head.vocab_size, dtype=sizes.stats_dtype, device=inputs.hidden.device
    )
    for token_slice, raw in iter_products(inputs, sizes, product_out):
        if sizes.use_kernel:
            from sgcd.learn.scoring.logits.triton_kernel import compute_group_stats

            group_stats = compute_group_stats(raw, inputs.head, inputs.temperature)
            yield build_cuda_block(inputs.rows(token_slice), token_slice, raw, group_stats=group_stats)
        else:
            yield from _iter_cpu_blocks(inputs, raw, token_slice.start, block_buffers=block_buffers)


def iter_products(inputs: LogitsInputs, sizes: ChunkSizes, out: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """The head's product with each chunk of tokens: in its rows of `out`, or in one buffer that is used again."""
    num_tokens = len(inputs.hidden)
    buffer = allocate_product(inputs.head, inputs.hidden, min(sizes.product_rows, num_tokens)) if out is None else out
    for token_slice in iter_chunks(num_tokens, sizes):
        raw = buffer[: token_slice.stop - token_slice.start] if out is None else out[token_slice]
        inputs.head.project(inputs.hidden[token_slice], raw)
        yield token_slice, raw


def iter_chunks(num_tokens: int, sizes: ChunkSizes) -> Iterator[slice]:
    """The tokens of each product, at least one chunk, if an empty one."""
    for start in range(0, max(1, num_tokens), sizes.product_rows):
        yield slice(start, min(start + sizes.product_rows, num_tokens))


def _iter_cpu_blocks(
    inputs: LogitsInputs, raw: Tensor, start: int, *, block_buffers: Tensor
) -> Iterator[CpuLogitsBlock]:
    """The tokens of one product, which begins at token `start`, in buffers that stay in the cache."""
    block_rows = max(1, block_buffers.shape[1])
    for offset in range(0, max(1, len(raw)), block_rows):
        raw_part = raw[offset : offset + block_rows]
        token_slice = slice(start + offset, start + offset + len(raw_part))
        logits_out, probs_out = block_buffers[:, : len(raw_part)]
        yield build_cpu_block(
            inputs.rows(token_slice), token_slice, raw_part, logits_out=logits_out, probs_out=probs_out
        )


def chunk_sizes(head: Head, hidden: Tensor, logits_bytes: int) -> ChunkSizes:
    """Sizes that stay within `logits_bytes`; the only place that chooses between the kernel and torch."""
    stats_dtype = torch.promote_types(hidden.dtype, torch.float32)
    row_bytes = head.vocab_size * stats_dtype.itemsize
    check_logits_bytes(head.vocab_size, logits_bytes, stats_dtype.itemsize)
    if uses_kernel(hidden):  # nothing else is as large as the product
        product_rows = max(1, logits_bytes // (2 * row_bytes))
        return ChunkSizes(product_rows, product_rows, stats_dtype, use_kernel=True)
    cache_rows = _CPU_BLOCK_LOGITS // head.vocab_size if not hidden.is_cuda else logits_bytes
    block_rows = max(1, min(cache_rows, logits_bytes // (6 * row_bytes)))
    product_bytes = logits_bytes - logits_bytes // _PRODUCT_RESERVE - 3 * block_rows * row_bytes
    product_rows = max(1, product_bytes // (head.vocab_size * product_dtype(hidden).itemsize))
    if not hidden.is_cuda:
        product_rows = min(product_rows, max(_CPU_PRODUCT_ROWS, _CPU_BLOCK_LOGITS // head.vocab_size))
    return ChunkSizes(product_rows, min(block_rows, product_rows), stats_dtype, use_kernel=False)


def check_logits_bytes(vocab_size: int, logits_bytes: int, itemsize: int = 4) -> None:
    """Refuse a budget that does not hold one token's logits and their statistics."""
    if logits_bytes < 3 * vocab_size * itemsize:
        raise RecipeError(
            f"scoring.logits_bytes: {logits_bytes:,} do not hold one row of logits; a vocabulary of "
            f"{vocab_size:,} needs at least {3 * vocab_size * itemsize:,}"
        )


def uses_kernel(hidden: Tensor) -> bool:
    """Whether the Triton kernel reads the logits of these hidden states."""
    return hidden.is_cuda and hidden.dtype != torch.float64 and is_kernel_available(hidden.device)


@cache
def is_kernel_available(device: torch.device) -> bool:
    """Whether the kernel runs on this device: it needs Triton and a C compiler. Tried once."""
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
    """An uninitialized tensor for the head's product with `num_rows` hidden states."""
    return torch.empty(num_rows, head.vocab_size, dtype=product_dtype(hidden), device=hidden.device)


def product_dtype(hidden: Tensor) -> torch.dtype:
    """The type of the head's product: at least float32 on CUDA, that of the hidden states on a CPU."""
    return torch.promote_types(hidden.dtype, torch.float32) if hidden.is_cuda else hidden.dtype
