"""log p of the observed ids with a gradient, from hidden states, without ever holding [tokens, vocabulary].

The gradient with respect to logits z is g (onehot(y) - softmax(z)). Products with the head that fit into half the
budget wait for the way back; all others are computed again there, chunk by chunk.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.chunks import (
    LOGITS_BYTES,
    allocate_product,
    chunk_sizes,
    iter_logits_blocks,
    uses_kernel,
)
from sgcd.learn.scoring.logits.cpu_block import exp_shifted
from sgcd.learn.scoring.logits.stats import LogitStats, collect_stats


def logprobs_with_grad(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    ids: tuple[Tensor, ...] = (),
    temperature: float = 1.0,
    logits_bytes: int = LOGITS_BYTES,
) -> tuple[Tensor, LogitStats]:
    """log p of each observed id, and all that `stats_at` says, the same to the last bit and without gradient."""
    stats_out: list[LogitStats] = []
    logprobs = LogprobFunction.apply(
        hidden, head.weight, head.bias, head, observed, ids, temperature, logits_bytes, stats_out
    )
    return logprobs, stats_out[0]


class LogprobFunction(Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        observed: Tensor,
        ids: tuple[Tensor, ...],
        temperature: float,
        logits_bytes: int,
        stats_out: list[LogitStats],
    ) -> Tensor:
        product_bytes = len(hidden) * head.vocab_size * torch.promote_types(hidden.dtype, torch.float32).itemsize
        needs_grad = any(ctx.needs_input_grad[:3])
        saved_product = (
            allocate_product(head, hidden, len(hidden)) if needs_grad and 2 * product_bytes <= logits_bytes else None
        )
        stats = collect_stats(iter_logits_blocks(head, hidden, observed, temperature, logits_bytes, saved_product), ids)
        stats_out.append(stats)
        ctx.save_for_backward(hidden, weight, bias, observed, stats.logsumexp)
        ctx.how, ctx.kept = (head.scale, head.cap, temperature, logits_bytes), saved_product
        return stats.observed_logprob.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        hidden, weight, bias, observed, lse = ctx.saved_tensors
        scale, cap, temperature, logits_bytes = ctx.how
        head = Head(weight.detach(), None if bias is None else bias.detach(), scale, cap)
        saved_product, ctx.kept = ctx.kept, None
        head_gradients = HeadGradients(head, hidden, ctx.needs_input_grad[:3])
        product_rows = chunk_sizes(head, hidden, logits_bytes)[0]
        product_buffer = (
            None if saved_product is not None else allocate_product(head, hidden, min(product_rows, len(hidden)))
        )
        for start in range(0, len(hidden), product_rows):
            token_slice = slice(start, start + product_rows)
            chunk_hidden = hidden[token_slice]
            raw = saved_product[token_slice] if saved_product is not None else product_buffer[: len(chunk_hidden)]  # type: ignore[index]
            if saved_product is None:
                head.project(chunk_hidden, raw)
            compute_logits_gradient(
                head,
                raw,
                observed[token_slice],
                lse[token_slice],
                grad_outputs[0][token_slice],
                temperature,
                chunk_sizes(head, hidden, logits_bytes)[1],
            )
            head_gradients.accumulate(token_slice, raw, chunk_hidden)
        return *head_gradients.gradients(), *([None] * 6)


def compute_logits_gradient(
    head: Head, raw: Tensor, observed: Tensor, lse: Tensor, g: Tensor, temperature: float, block_rows: int
) -> None:
    """From the head's product to the gradient of sum g log p with respect to it, in place."""
    if uses_kernel(raw):
        from sgcd.learn.scoring.logits.triton_kernel import write_logits_gradient

        write_logits_gradient(head, raw, observed, lse, g, temperature)
        return
    buffer = torch.empty(min(block_rows, len(raw)), head.vocab_size, dtype=lse.dtype, device=raw.device)
    shift, g = lse * math.log2(math.e), g * (head.scale / temperature)
    for start in range(0, len(raw), block_rows):
        rows = slice(start, start + block_rows)
        raw_part = raw[rows]
        z = buffer[: len(raw_part)]
        logits = head.to_logits(raw_part, temperature, z)
        cap_slope = None if head.cap is None else 1 - (logits * (temperature / head.cap)) ** 2
        exp_shifted(logits, shift[rows], z).mul_(-g[rows, None])
        z.scatter_add_(1, observed[rows, None], g[rows, None])
        raw_part.copy_(z if cap_slope is None else z.mul_(cap_slope))


class HeadGradients:
    """Adds up the gradients of hidden states, weight and bias, chunk by chunk."""

    def __init__(self, head: Head, hidden: Tensor, needs_grad: tuple[bool, bool, bool]) -> None:
        self._head = head
        self._hidden = torch.empty_like(hidden) if needs_grad[0] else None
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        self._weight = torch.zeros_like(head.weight, dtype=dtype) if needs_grad[1] else None
        self._bias = torch.zeros_like(head.bias, dtype=dtype) if needs_grad[2] and head.bias is not None else None

    def accumulate(self, token_slice: slice, raw_gradient: Tensor, hidden: Tensor) -> None:
        if self._bias is not None:
            self._bias += raw_gradient.sum(0, dtype=self._bias.dtype)
        raw_gradient = raw_gradient.to(hidden.dtype)
        if self._hidden is not None:
            torch.mm(raw_gradient, self._head.weight, out=self._hidden[token_slice])
        if self._weight is not None and self._weight.dtype == raw_gradient.dtype:
            self._weight.addmm_(raw_gradient.t(), hidden)
        elif self._weight is not None:
            self._weight += raw_gradient.t() @ hidden

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        dtype = self._head.weight.dtype
        weight, bias = (None if total is None else total.to(dtype) for total in (self._weight, self._bias))
        return self._hidden, weight, bias
