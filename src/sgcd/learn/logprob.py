"""log p of the observed ids with a gradient, from hidden states, without ever holding [tokens, vocabulary].

The gradient with respect to logits z is g (onehot(y) - softmax(z)). Products with the head that fit into half the
budget wait for the way back; all others are computed again there, chunk by chunk.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sgcd.learn.block import powers
from sgcd.learn.head import Head
from sgcd.learn.rows import ROOM, blocks, fused, plan, product_like
from sgcd.learn.stats import Said, collect


def said_with_gradient(
    hidden: Tensor, head: Head, observed: Tensor, ids: tuple[Tensor, ...] = (), heat: float = 1.0, room: int = ROOM
) -> tuple[Tensor, Said]:
    """log p of each observed id, and all that `stats_at` says, the same to the last bit and without gradient."""
    told: list[Said] = []
    logp = LogProb.apply(hidden, head.weight, head.bias, head, observed, ids, heat, room, told)
    return logp, told[0]


class LogProb(Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        observed: Tensor,
        ids: tuple[Tensor, ...],
        heat: float,
        room: int,
        told: list[Said],
    ) -> Tensor:
        size = len(hidden) * head.size * torch.promote_types(hidden.dtype, torch.float32).itemsize
        wanted = any(ctx.needs_input_grad[:3])
        kept = product_like(head, hidden, len(hidden)) if wanted and 2 * size <= room else None
        said = collect(blocks(head, hidden, observed, heat, room, kept), ids)
        told.append(said)
        ctx.save_for_backward(hidden, weight, bias, observed, said.lse)
        ctx.how, ctx.kept = (head.scale, head.cap, heat, room), kept
        return said.own.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        hidden, weight, bias, observed, lse = ctx.saved_tensors
        scale, cap, heat, room = ctx.how
        head = Head(weight.detach(), None if bias is None else bias.detach(), scale, cap)
        kept, ctx.kept = ctx.kept, None
        back = Back(head, hidden, ctx.needs_input_grad[:3])
        rows = plan(head, hidden, room)[0]
        chunk = None if kept is not None else product_like(head, hidden, min(rows, len(hidden)))
        for start in range(0, len(hidden), rows):
            here = slice(start, start + rows)
            some = hidden[here]
            raw = kept[here] if kept is not None else chunk[: len(some)]  # type: ignore[index]
            if kept is None:
                head.raw(some, raw)
            gradient_of_raw(head, raw, observed[here], lse[here], given[0][here], heat, plan(head, hidden, room)[1])
            back.add(here, raw, some)
        return *back.gradients(), *([None] * 6)


def gradient_of_raw(head: Head, raw: Tensor, observed: Tensor, lse: Tensor, g: Tensor, heat: float, step: int) -> None:
    """From the head's product to the gradient of sum g log p with respect to it, in place."""
    if fused(raw):
        from sgcd.learn.kernel import gradient

        gradient(head, raw, observed, lse, g, heat)
        return
    buffer = torch.empty(min(step, len(raw)), head.size, dtype=lse.dtype, device=raw.device)
    shift, g = lse * math.log2(math.e), g * (head.scale / heat)
    for start in range(0, len(raw), step):
        here = slice(start, start + step)
        part = raw[here]
        z = buffer[: len(part)]
        done = head.finish(part, heat, z)
        bend = None if head.cap is None else 1 - (done * (heat / head.cap)) ** 2
        powers(done, shift[here], z).mul_(-g[here, None])
        z.scatter_add_(1, observed[here, None], g[here, None])
        part.copy_(z if bend is None else z.mul_(bend))


class Back:
    """Adds up the gradients of hidden states, weight and bias, chunk by chunk."""

    def __init__(self, head: Head, hidden: Tensor, wanted: tuple[bool, bool, bool]) -> None:
        self._head = head
        self._hidden = torch.empty_like(hidden) if wanted[0] else None
        wide = torch.promote_types(hidden.dtype, torch.float32)
        self._weight = torch.zeros_like(head.weight, dtype=wide) if wanted[1] else None
        self._bias = torch.zeros_like(head.bias, dtype=wide) if wanted[2] and head.bias is not None else None

    def add(self, here: slice, z: Tensor, hidden: Tensor) -> None:
        if self._bias is not None:
            self._bias += z.sum(0, dtype=self._bias.dtype)
        z = z.to(hidden.dtype)
        if self._hidden is not None:
            torch.mm(z, self._head.weight, out=self._hidden[here])
        if self._weight is not None and self._weight.dtype == z.dtype:
            self._weight.addmm_(z.t(), hidden)
        elif self._weight is not None:
            self._weight += z.t() @ hidden

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        dtype = self._head.weight.dtype
        weight, bias = (None if each is None else each.to(dtype) for each in (self._weight, self._bias))
        return self._hidden, weight, bias
