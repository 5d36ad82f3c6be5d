"""A loss over K ids, the observed id and the tail: its gradient is that of autograd over the whole vocabulary."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.random_heads import HEADS, drawn, in_full, observed_of
from sgcd.credit.divergence import divergence_of
from sgcd.credit.settings import Divergence
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad
from sgcd.learn.scoring.logits.stats import topk_stats
from sgcd.learn.scoring.teacher import topk_observed_tail

SIZE, COUNT = 300, 21
TEMPERATURE = 0.7
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From outcomes p and q [tokens, K + 2] and log p of the observed id."""


def leaves(hidden: Tensor, head: Head) -> tuple[Tensor, Head, list[Tensor]]:
    hidden = hidden.clone().requires_grad_()
    weight = head.weight.clone().requires_grad_()
    bias = None if head.bias is None else head.bias.clone().requires_grad_()
    return hidden, replace(head, weight=weight, bias=bias), [x for x in (hidden, weight, bias) if x is not None]


def all_logprobs(hidden: Tensor, head: Head) -> Tensor:
    z = torch.nn.functional.linear(hidden, head.weight, head.bias) * head.scale
    z = z if head.cap is None else head.cap * torch.tanh(z / head.cap)
    return (z / TEMPERATURE).log_softmax(-1)


def support_of(hidden: Tensor, head: Head, observed: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The teacher's likeliest ids and its outcomes there; the observed id is among them for some tokens only."""
    teacher = hidden + 0.3 * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2), dtype=hidden.dtype)
    top = topk_stats(teacher, head, observed, k=k, temperature=TEMPERATURE)
    return top.ids, topk_observed_tail(top.ids, observed, top.logprobs, top.observed_logprob, top.tail_logprob)


def observed_ids(hidden: Tensor, head: Head) -> Tensor:
    """Half of them the likeliest, half of them any."""
    observed = observed_of(head.vocab_size, len(hidden))
    observed[::2] = all_logprobs(hidden, head).argmax(-1)[::2]
    return observed


def gradients(loss: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    assert loss.isfinite().all()
    return list(torch.autograd.grad(loss, wanted))


def reverse_kl(p: Tensor, q: Tensor, logprobs: Tensor) -> Tensor:
    return (divergence_of(p, q) * torch.linspace(0.5, 2, len(p), dtype=p.dtype)).sum()


def forward_kl(p: Tensor, q: Tensor, logprobs: Tensor) -> Tensor:
    return divergence_of(p, q, "forward_kl").sum()


def jensen_shannon(p: Tensor, q: Tensor, logprobs: Tensor) -> Tensor:
    return divergence_of(p, q, "jsd").sum()


def with_policy_gradient(p: Tensor, q: Tensor, logprobs: Tensor) -> Tensor:
    return divergence_of(p, q).sum() - (logprobs * torch.linspace(-1, 3, len(p), dtype=p.dtype)).sum()


@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("k", [1, 5, 40, SIZE - 1, SIZE])
@pytest.mark.parametrize("logits_bytes", [60_000, 2**30], ids=["again", "kept"])
@pytest.mark.parametrize("loss", [reverse_kl, forward_kl, jensen_shannon, with_policy_gradient])
def test_the_gradient_is_that_of_autograd(how: dict[str, Any], k: int, logits_bytes: int, loss: Loss) -> None:
    drawing = drawn(SIZE, COUNT, **how)
    observed = observed_ids(*drawing)
    ids, q = support_of(*drawing, observed, k)
    hidden, head, wanted = leaves(*drawing)
    other_ids = torch.arange(3).repeat(COUNT, 1)
    logprobs, stats = logprobs_with_grad(
        hidden,
        head,
        observed,
        ids=(other_ids, ids),
        temperature=TEMPERATURE,
        logits_bytes=logits_bytes,
        grad_ids_index=1,
    )
    assert not any(tensor.requires_grad for tensor in (*stats.logprobs_at[0], stats.entropy, stats.observed_logprob))
    at_ids, tail = stats.logprobs_at[1]
    ours = loss(topk_observed_tail(ids, observed, at_ids, logprobs, tail), q, logprobs)
    found = gradients(ours, wanted)
    hidden, head, wanted = leaves(*drawing)
    p = all_logprobs(hidden, head)
    true = loss(_outcomes_by_autograd(p, ids, observed), q, p.gather(1, observed[:, None])[:, 0])
    torch.testing.assert_close(ours, true, atol=1e-10, rtol=1e-10)
    for ours, theirs in zip(found, gradients(true, wanted), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def _outcomes_by_autograd(p: Tensor, ids: Tensor, observed: Tensor) -> Tensor:
    """`in_full`, whose empty slots (-inf) give autograd no NaN."""
    is_outside = torch.ones_like(p, dtype=torch.bool).scatter(1, ids, False).scatter(1, observed[:, None], False)
    has_tail = is_outside.any(-1)
    tail = torch.where(is_outside, p, -1e300)[has_tail].logsumexp(-1)
    tails = torch.full_like(p[:, 0], -torch.inf).masked_scatter(has_tail, tail)
    outcomes = topk_observed_tail(ids, observed, p.gather(1, ids), p.gather(1, observed[:, None])[:, 0], tails)
    torch.testing.assert_close(outcomes.detach(), in_full(p.detach(), ids, observed))
    return outcomes


def test_equal_distributions_have_a_divergence_without_gradient() -> None:
    drawing = drawn(SIZE, COUNT)
    observed = observed_ids(*drawing)
    top = topk_stats(*drawing, observed, k=7)
    q = topk_observed_tail(top.ids, observed, top.logprobs, top.observed_logprob, top.tail_logprob)
    hidden, head, wanted = leaves(*drawing)
    logprobs, stats = logprobs_with_grad(hidden, head, observed, ids=(top.ids,), grad_ids_index=0)
    at_ids, tail = stats.logprobs_at[0]
    for kind in get_args(Divergence):
        d = divergence_of(topk_observed_tail(top.ids, observed, at_ids, logprobs, tail), q, kind)
        assert not d.any()
        for found in torch.autograd.grad(d.sum(), wanted, retain_graph=True):
            assert found.abs().max() < 1e-12


def test_a_second_way_back_gives_the_same() -> None:
    hidden, head, wanted = leaves(*drawn(SIZE, COUNT))
    ids = torch.arange(4).repeat(COUNT, 1)
    _, stats = logprobs_with_grad(hidden, head, observed_of(SIZE, COUNT), ids=(ids,), grad_ids_index=0)
    at_ids, tail = stats.logprobs_at[0]
    loss = at_ids.sum() + tail.sum()
    once, twice = (torch.autograd.grad(loss, wanted, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_option_changes_no_value_and_no_gradient_of_the_observed_id(dtype: torch.dtype) -> None:
    drawing, observed = drawn(5000, COUNT, dtype=dtype), observed_of(5000, COUNT)
    ids = torch.arange(7).repeat(COUNT, 1)
    results = []
    for differentiable in (None, 0):
        hidden, head, wanted = leaves(*drawing)
        logprobs, stats = logprobs_with_grad(
            hidden, head, observed, ids=(ids,), temperature=0.7, grad_ids_index=differentiable
        )
        values = [logprobs, stats.entropy, stats.logsumexp, *stats.logprobs_at[0]]
        results.append(([value.detach() for value in values], torch.autograd.grad(logprobs.sum(), wanted)))
    (plain, plain_gradients), (ours, our_gradients) = results
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))
    for a, b in zip(plain_gradients, our_gradients, strict=True):
        assert (a - b).double().norm() <= (1e-6 if dtype == torch.float32 else 0.01) * a.double().norm()


def test_below_float32_the_gradient_is_as_near_as_the_weights_allow() -> None:
    found = []
    exact = drawn(SIZE, COUNT)
    observed = observed_ids(*exact)
    ids, q = support_of(*exact, observed, 9)
    for dtype in (torch.bfloat16, torch.float64):
        hidden, head, wanted = leaves(*drawn(SIZE, COUNT, dtype=dtype))
        logprobs, stats = logprobs_with_grad(
            hidden, head, observed, ids=(ids,), temperature=TEMPERATURE, logits_bytes=60_000, grad_ids_index=0
        )
        at_ids, tail = stats.logprobs_at[0]
        p = topk_observed_tail(ids, observed, at_ids, logprobs, tail)
        found.append([g.double() for g in gradients(divergence_of(p, q.to(p.dtype)).sum(), wanted)])
    for ours, true in zip(*found, strict=True):
        assert (ours - true).norm() <= 0.03 * true.norm()


def test_a_tail_that_is_almost_nothing_gives_finite_gradients() -> None:
    hidden, head, _ = leaves(*drawn(SIZE, COUNT, dtype=torch.float32))
    ids = all_logprobs(hidden, head).topk(2).indices.sort(-1).values
    for temperature in (0.2, 0.1, 0.05, 0.02, 0.005):
        _, stats = logprobs_with_grad(hidden, head, ids[:, 0], ids=(ids,), temperature=temperature, grad_ids_index=0)
        tail = stats.logprobs_at[0][1]
        assert torch.autograd.grad((10 * tail).sum(), hidden)[0].isfinite().all()
    assert tail.isinf().any()


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that an operation returns, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        numels = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.numel = max(self.numel, *numels, 0)
        return result


def test_nothing_of_the_size_tokens_times_vocabulary_is_made() -> None:
    size, count = 2000, 300
    hidden, head = drawn(size, count, dtype=torch.float32)
    observed, ids = observed_of(size, count), torch.arange(6).repeat(count, 1)
    hidden.requires_grad_()
    with LargestTensor() as largest:
        logprobs, stats = logprobs_with_grad(
            hidden, head, observed, ids=(ids,), temperature=1.0, logits_bytes=20 * size * 4, grad_ids_index=0
        )
        at_ids, tail = stats.logprobs_at[0]
        (at_ids.sum() + tail.sum() + logprobs.sum()).backward()
    assert hidden.grad is not None
    assert largest.numel == max(size * hidden.shape[1], 20 * size)
