"""log p with a gradient: that of autograd over the whole vocabulary, kept or computed again, in any chunks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.random_heads import HEADS, drawn, observed_of
from sgcd.learn.policy.head import Head
from sgcd.learn.scoring.logits import chunks as rows
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad
from sgcd.learn.scoring.logits.stats import stats_at

SIZE, COUNT = 300, 21


def by_autograd(hidden: Tensor, head: Head, observed: Tensor, heat: float) -> Tensor:
    z = torch.nn.functional.linear(hidden, head.weight, head.bias) * head.scale
    z = z if head.cap is None else head.cap * torch.tanh(z / head.cap)
    return (z / heat).log_softmax(-1).gather(1, observed[:, None])[:, 0]


def leaves(hidden: Tensor, head: Head) -> tuple[Tensor, Head, list[Tensor]]:
    hidden = hidden.clone().requires_grad_()
    weight = head.weight.clone().requires_grad_()
    bias = None if head.bias is None else head.bias.clone().requires_grad_()
    return hidden, replace(head, weight=weight, bias=bias), [x for x in (hidden, weight, bias) if x is not None]


@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("room", [60_000, 2**30], ids=["again", "kept"])
def test_value_and_gradient_are_those_of_autograd(how: dict[str, Any], room: int) -> None:
    drawing, observed = drawn(SIZE, COUNT, **how), observed_of(SIZE, COUNT)
    g = torch.randn(COUNT, dtype=torch.float64)
    found = []
    for ours in (True, False):
        hidden, head, wanted = leaves(*drawing)
        logp = (
            logprobs_with_grad(hidden, head, observed, temperature=0.7, logits_bytes=room)[0]
            if ours
            else by_autograd(hidden, head, observed, 0.7)
        )
        found.append([logp, *torch.autograd.grad((logp * g).sum(), wanted)])
    for here, there in zip(*found, strict=True):
        assert torch.allclose(here, there, atol=1e-11)


def test_a_second_way_back_gives_the_same() -> None:
    hidden, head, wanted = leaves(*drawn(SIZE, COUNT))
    logp = logprobs_with_grad(hidden, head, observed_of(SIZE, COUNT))[0].sum()
    once, twice = (torch.autograd.grad(logp, wanted, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_what_needs_no_gradient_gets_none() -> None:
    hidden, head, _ = leaves(*drawn(SIZE, COUNT))
    frozen = replace(head, weight=head.weight.detach())
    logprobs_with_grad(hidden, frozen, observed_of(SIZE, COUNT))[0].sum().backward()
    assert hidden.grad is not None
    assert frozen.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_statistics_are_those_without_gradient_to_the_last_bit(dtype: torch.dtype) -> None:
    hidden, head, _ = leaves(*drawn(5000, COUNT, dtype=dtype))
    observed = observed_of(5000, COUNT)
    ids = torch.arange(7).repeat(COUNT, 1)
    logp, said = logprobs_with_grad(hidden, head, observed, ids=(ids,), temperature=0.7)
    plain = stats_at(hidden, head, observed, ids=[ids], temperature=0.7)
    assert torch.equal(logp.detach(), plain.observed_logprob)
    assert not said.entropy.requires_grad
    assert torch.equal(said.logprobs_at[0][0], plain.logprobs_at[0][0]) and torch.equal(
        said.logprobs_at[0][1], plain.logprobs_at[0][1]
    )


def test_below_float32_the_gradient_is_as_near_as_the_weights_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_CPU_PRODUCT_ROWS", 4)
    monkeypatch.setattr(rows, "_CPU_BLOCK_LOGITS", 600)
    observed = observed_of(SIZE, COUNT)
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        hidden, head, wanted = leaves(*drawn(SIZE, COUNT, dtype=dtype))
        logp = logprobs_with_grad(hidden, head, observed, temperature=1.0, logits_bytes=60_000)[0]
        found.append([each.double() for each in torch.autograd.grad(logp.sum(), wanted)])
    for here, there in zip(*found, strict=True):
        assert (here - there).norm() <= 0.03 * there.norm()
