"""log p of the observed ids with a gradient, from hidden states, without ever holding [tokens, vocabulary].

The gradient with respect to logits z is g (onehot(y) - softmax(z)). Products with the head that fit into half the
budget wait for the way back; all others are computed again there, chunk by chunk.
"""

import math
from dataclasses import dataclass, replace
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

_MIN_TAIL_PROB = 1e-30
"""A smaller tail counts as this much in its gradient, so that g / P_tail stays a float32 number."""


def logprobs_with_grad(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    ids: tuple[Tensor, ...] = (),
    temperature: float = 1.0,
    logits_bytes: int = LOGITS_BYTES,
    *,
    differentiable: int | None = None,
) -> tuple[Tensor, LogitStats]:
    """log p of each observed id with a gradient, and the statistics that `stats_at` returns, to the last bit.

    The statistics carry no gradient, with one exception: `logprobs_at[differentiable]`, the log-probabilities at
    `ids[differentiable]` [tokens, K] and of the tail, have one, so that a divergence over these outcomes can be part
    of a loss. The K ids of a token must differ from each other. An outcome without mass (-inf) gets no gradient.
    """
    stats_out: list[LogitStats] = []
    logprobs, at_ids, tail = LogprobFunction.apply(
        hidden, head.weight, head.bias, head, observed, ids, temperature, logits_bytes, differentiable, stats_out
    )
    stats = stats_out[0]
    if differentiable is None:
        return logprobs, stats
    logprobs_at = list(stats.logprobs_at)
    logprobs_at[differentiable] = at_ids, tail
    return logprobs, replace(stats, logprobs_at=logprobs_at)


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
        differentiable: int | None,
        stats_out: list[LogitStats],
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        product_bytes = len(hidden) * head.vocab_size * torch.promote_types(hidden.dtype, torch.float32).itemsize
        needs_grad = any(ctx.needs_input_grad[:3])
        saved_product = (
            allocate_product(head, hidden, len(hidden)) if needs_grad and 2 * product_bytes <= logits_bytes else None
        )
        stats = collect_stats(iter_logits_blocks(head, hidden, observed, temperature, logits_bytes, saved_product), ids)
        stats_out.append(stats)
        outcomes = (None, None, None)
        if differentiable is not None:
            outcomes = (ids[differentiable], *stats.logprobs_at[differentiable])
        ctx.save_for_backward(hidden, weight, bias, observed, stats.logsumexp, stats.observed_logprob, *outcomes)
        ctx.how, ctx.kept = (head.scale, head.cap, temperature, logits_bytes), saved_product
        _, at_ids, tail = outcomes
        if at_ids is None or tail is None:
            return stats.observed_logprob.clone(), None, None
        return stats.observed_logprob.clone(), at_ids.clone(), tail.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        hidden, weight, bias, observed, lse, observed_logprob, ids, at_ids, tail = ctx.saved_tensors
        scale, cap, temperature, logits_bytes = ctx.how
        head = Head(weight.detach(), None if bias is None else bias.detach(), scale, cap)
        g, outcomes = grad_outputs[0], None
        if ids is not None:
            outcomes = OutcomeGradient.build(ids, observed, (at_ids, observed_logprob, tail), grad_outputs)
            g = outcomes.outside
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
                g[token_slice],
                temperature,
                chunk_sizes(head, hidden, logits_bytes)[1],
            )
            if outcomes is not None:
                outcomes.write_inside(head, raw, token_slice, lse, temperature)
            head_gradients.accumulate(token_slice, raw, chunk_hidden)
        return *head_gradients.gradients(), *([None] * 7)


@dataclass(frozen=True, slots=True)
class OutcomeGradient:
    """The gradient of a loss over K ids, the observed id and the tail, with respect to the logits z.

    With the support S of the ids and the observed id, and the sum G of the gradients g of all outcomes,
    dL/dz_v = g_v - G p_v inside S, and (g_tail / P_tail - G) p_v outside.
    """

    outside: Tensor
    """[tokens]: G - g_tail / P_tail, which takes the place of g in the gradient of a single log p."""
    support: Tensor
    """[tokens, K + 1]: S; the observed id is last, and may be among the K as well."""
    logprobs: Tensor
    """[tokens, K + 1]: log p there."""
    inside: Tensor
    """[tokens, K + 1]: dL/dz there."""

    @staticmethod
    def build(
        ids: Tensor, observed: Tensor, logprobs: tuple[Tensor, Tensor, Tensor], grads: tuple[Tensor, ...]
    ) -> "OutcomeGradient":
        """From log p at the ids, of the observed id and of the tail; and from the gradients in autograd's order."""
        at_ids, observed_logprob, tail = logprobs
        g_observed = grads[0]
        g_ids = grads[1].masked_fill(at_ids == -torch.inf, 0)
        g_tail = grads[2].masked_fill(tail == -torch.inf, 0)
        total = g_ids.sum(-1) + g_observed + g_tail
        is_observed = ids == observed[:, None]
        own = torch.cat(
            [
                g_ids + g_observed[:, None].masked_fill(~is_observed, 0),
                (g_observed + g_ids.masked_fill(~is_observed, 0).sum(-1))[:, None],
            ],
            dim=1,
        )
        support_logprobs = torch.cat([at_ids, observed_logprob[:, None]], dim=1)
        return OutcomeGradient(
            outside=total - g_tail / tail.exp().clamp_min(_MIN_TAIL_PROB),
            support=torch.cat([ids, observed[:, None]], dim=1),
            logprobs=support_logprobs,
            inside=own - total[:, None] * support_logprobs.exp(),
        )

    def write_inside(self, head: Head, raw_gradient: Tensor, rows: slice, lse: Tensor, temperature: float) -> None:
        """Overwrite the gradient with respect to the head's product at the support of some rows."""
        inside = self.inside[rows] * (head.scale / temperature)
        if head.cap is not None:
            inside *= 1 - ((self.logprobs[rows] + lse[rows, None]) * (temperature / head.cap)) ** 2
        raw_gradient.scatter_(1, self.support[rows], inside.to(raw_gradient.dtype))


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
