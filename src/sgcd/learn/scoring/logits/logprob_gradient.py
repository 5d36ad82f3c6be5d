"""Log-probabilities with a gradient, straight from hidden states."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.block import LogitsInputs
from sgcd.learn.scoring.logits.chunks import (
    LOGITS_BYTES,
    ChunkSizes,
    allocate_product,
    chunk_sizes,
    iter_chunks,
    iter_logits_blocks,
    iter_products,
)
from sgcd.learn.scoring.logits.cpu_block import exp_shifted
from sgcd.learn.scoring.logits.stats import LogitStats, collect_stats

_MIN_TAIL_PROB = 1e-30
"""A smaller tail counts as this much in its gradient, so that g / P_tail stays a float32 number."""


@dataclass(frozen=True, slots=True)
class OutcomeLogprobs:
    """The outcomes of each token: log p at K ids, of the observed id, and of the tail outside all these."""

    ids: Tensor
    """[tokens, K]: different from each other; the observed id may be among them."""
    at_ids: Tensor
    """[tokens, K]."""
    observed: Tensor
    tail: Tensor


@dataclass(frozen=True, slots=True)
class OutcomeGradient:
    """dL/dz of every logit z, in a few numbers per token.

    With the support S of the ids and the observed id, and the sum G of the gradients g of all outcomes,
    dL/dz_v = g_v - G p_v inside S, and (g_tail / P_tail - G) p_v outside.
    """

    outside: Tensor
    """[tokens]: G - g_tail / P_tail, which takes the place of g in the gradient of a single log p."""
    support: Tensor
    """[tokens, K + 1]: S; the observed id is last, and may be among the K as well."""
    logprobs: Tensor
    """[tokens, K + 1]: log p inside S."""
    inside: Tensor
    """[tokens, K + 1]: dL/dz inside S."""

    def write_inside(self, inputs: LogitsInputs, raw_gradient: Tensor, token_slice: slice, *, lse: Tensor) -> None:
        """Overwrites the gradient of the head's output for the tokens in `token_slice`, at their support ids."""
        head, temperature = inputs.head, inputs.temperature
        inside = self.inside[token_slice] * (head.scale / temperature)
        if head.cap is not None:
            logits = self.logprobs[token_slice] + lse[token_slice, None]
            inside *= 1 - (logits * (temperature / head.cap)) ** 2
        raw_gradient.scatter_(1, self.support[token_slice], inside.to(raw_gradient.dtype))


def build_outcome_gradient(
    logprobs: OutcomeLogprobs, observed_ids: Tensor, gradients: tuple[Tensor, ...]
) -> OutcomeGradient:
    """From the gradients g of log p(observed), at the ids and of the tail; an outcome without mass (-inf) has none."""
    g_observed, g_ids, g_tail = gradients
    g_ids = g_ids.masked_fill(logprobs.at_ids == -torch.inf, 0)
    g_tail = g_tail.masked_fill(logprobs.tail == -torch.inf, 0)
    total = g_ids.sum(-1) + g_observed + g_tail
    is_observed = logprobs.ids == observed_ids[:, None]  # the observed id among the K adds both gradients, in each slot
    at_ids = g_ids + g_observed[:, None].masked_fill(~is_observed, 0)
    at_observed = g_observed + g_ids.masked_fill(~is_observed, 0).sum(-1)
    support_logprobs = torch.cat([logprobs.at_ids, logprobs.observed[:, None]], dim=1)
    return OutcomeGradient(
        outside=total - g_tail / logprobs.tail.exp().clamp_min(_MIN_TAIL_PROB),
        support=torch.cat([logprobs.ids, observed_ids[:, None]], dim=1),
        logprobs=support_logprobs,
        inside=torch.cat([at_ids, at_observed[:, None]], dim=1) - total[:, None] * support_logprobs.exp(),
    )


def logprobs_with_grad(
    hidden: Tensor,
    head: Head,
    observed: Tensor,
    *,
    ids: Sequence[Tensor] = (),
    grad_ids_index: int | None = None,
    temperature: float = 1.0,
    logits_bytes: int = LOGITS_BYTES,
) -> tuple[Tensor, LogitStats]:
    """log p of each observed id with a gradient, and the statistics that `stats_at` returns, to the last bit.

    The statistics carry no gradient, with one exception: `logprobs_at[grad_ids_index]`, the log-probabilities at
    `ids[grad_ids_index]` [tokens, K] and of the tail, have one, so that a divergence over these outcomes can be part
    of a loss. The K ids of a token must differ from each other. An outcome without mass (-inf) gets no gradient.
    """
    request = LogprobRequest(LogitsInputs(hidden, head, observed, temperature), ids, grad_ids_index, logits_bytes)
    logprobs, at_ids, tail = LogprobFunction.apply(hidden, head.weight, head.bias, request)
    stats = request.stats_out[0]
    if grad_ids_index is None:
        return logprobs, stats
    logprobs_at = list(stats.logprobs_at)
    logprobs_at[grad_ids_index] = at_ids, tail
    return logprobs, replace(stats, logprobs_at=logprobs_at)


@dataclass(frozen=True, slots=True)
class LogprobRequest:
    """All that one call reads, apart from the tensors that autograd has to see; and where its statistics go."""

    inputs: LogitsInputs
    ids: Sequence[Tensor]
    differentiable: int | None
    logits_bytes: int
    stats_out: list[LogitStats] = field(default_factory=list[LogitStats])


@dataclass(frozen=True, slots=True)
class _BackwardConfig:
    scale: float
    cap: float | None
    temperature: float
    logits_bytes: int


class LogprobFunction(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, request: LogprobRequest
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        inputs, head, logits_bytes = request.inputs, request.inputs.head, request.logits_bytes
        product_bytes = len(hidden) * head.vocab_size * torch.promote_types(hidden.dtype, torch.float32).itemsize
        is_kept = any(ctx.needs_input_grad[:3]) and 2 * product_bytes <= logits_bytes
        ctx.saved_product = allocate_product(head, hidden, len(hidden)) if is_kept else None
        stats = collect_stats(iter_logits_blocks(inputs, logits_bytes, ctx.saved_product), request.ids)
        request.stats_out.append(stats)
        ids = at_ids = tail = None
        if request.differentiable is not None:
            ids = request.ids[request.differentiable]
            at_ids, tail = (logprobs.clone() for logprobs in stats.logprobs_at[request.differentiable])
        ctx.save_for_backward(
            hidden, weight, bias, inputs.observed, stats.logsumexp, stats.observed_logprob, ids, at_ids, tail
        )
        ctx.config = _BackwardConfig(head.scale, head.cap, inputs.temperature, logits_bytes)
        return stats.observed_logprob.clone(), at_ids, tail

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        hidden, weight, bias, observed, lse, observed_logprob, ids, at_ids, tail = ctx.saved_tensors
        config: _BackwardConfig = ctx.config
        head = Head(weight.detach(), None if bias is None else bias.detach(), config.scale, config.cap)
        inputs = LogitsInputs(hidden, head, observed, config.temperature)
        g, outcomes = grad_outputs[0], None
        if ids is not None:
            logprobs = OutcomeLogprobs(ids, at_ids, observed_logprob, tail)
            outcomes = build_outcome_gradient(logprobs, observed, grad_outputs)
            g = outcomes.outside
        saved_product, ctx.saved_product = ctx.saved_product, None
        head_gradients = HeadGradients(head, hidden, ctx.needs_input_grad[:3])
        sizes = chunk_sizes(head, hidden, config.logits_bytes)
        for token_slice, raw in _iter_saved_products(inputs, sizes, saved_product):
            chunk = inputs.rows(token_slice)
            write_logits_gradient(chunk, raw, lse=lse[token_slice], g=g[token_slice], sizes=sizes)
            if outcomes is not None:
                outcomes.write_inside(inputs, raw, token_slice, lse=lse)
            head_gradients.accumulate(token_slice, raw, chunk.hidden)
        return *head_gradients.gradients(), None


def _iter_saved_products(
    inputs: LogitsInputs, sizes: ChunkSizes, saved_product: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """The head's product with each chunk of tokens, as the forward pass kept it, or computed again."""
    if saved_product is None:
        yield from iter_products(inputs, sizes)
    else:
        for token_slice in iter_chunks(len(inputs.hidden), sizes):
            yield token_slice, saved_product[token_slice]


def write_logits_gradient(inputs: LogitsInputs, raw: Tensor, *, lse: Tensor, g: Tensor, sizes: ChunkSizes) -> None:
    """Overwrite the head's product with the gradient of sum g log p(observed) with respect to it."""
    if sizes.use_kernel:
        from sgcd.learn.scoring.logits.triton_kernel import write_logits_gradient_by_kernel

        write_logits_gradient_by_kernel(inputs, raw, lse=lse, g=g)
        return
    head, temperature, observed = inputs.head, inputs.temperature, inputs.observed
    buffer = torch.empty(min(sizes.block_rows, len(raw)), head.vocab_size, dtype=lse.dtype, device=raw.device)
    shift, g = lse * math.log2(math.e), g * (head.scale / temperature)
    for start in range(0, len(raw), sizes.block_rows):
        rows = slice(start, start + sizes.block_rows)
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
        """Add one chunk: the gradient with respect to the head's product with `hidden`."""
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
        """Of hidden states, weight and bias; None for what needs none."""
        dtype = self._head.weight.dtype
        weight, bias = (None if total is None else total.to(dtype) for total in (self._weight, self._bias))
        return self._hidden, weight, bias
