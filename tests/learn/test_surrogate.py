"""The surrogate against the formula as it is published, at its boundaries, and under weights."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import importance_ratio, k3_kl, surrogate_loss, token_losses


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def published(ratio: Tensor, advantage: Tensor, low: float, high: float, dual: float | None) -> Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A), and at most -dual A where A < 0."""
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    if dual is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -dual * advantage), loss)


numbers = st.floats(-4, 4, allow_nan=False)


@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8),
    st.sampled_from([None, 0.28]),
    st.sampled_from([None, 3.0]),
)
def test_it_is_the_published_formula(pairs: list[Any], high: float | None, dual: float | None) -> None:
    shift, advantage = double(*(a for a, _ in pairs)), double(*(b for _, b in pairs))
    settings = SurrogateSettings(clip=0.2, clip_high=high, dual_clip=dual)
    got = token_losses(shift, torch.zeros_like(shift), advantage, settings)
    assert torch.allclose(got, published(shift.exp(), advantage, 0.2, high or 0.2, dual), atol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.19, 2.0, -2.38, -2.38),
        (1.21, 2.0, -2.4, 0.0),
        (0.5, 2.0, -1.0, -1.0),
        (0.81, -2.0, 1.62, 1.62),
        (0.79, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),
        (5.0, -2.0, 10.0, 10.0),
        (5.0, 0.0, 0.0, 0.0),
    ],
)
def test_on_either_side_of_the_boundary(ratio: float, advantage: float, loss: float, slope: float) -> None:
    """The slope is d loss / d logp: rho times A inside, nothing outside."""
    logp = double(math.log(ratio)).requires_grad_()
    got = token_losses(logp, double(0.0), double(advantage), SurrogateSettings(clip=0.2))
    got.sum().backward()
    assert got.item() == pytest.approx(loss)
    assert logp.grad is not None
    assert logp.grad.item() == pytest.approx(slope)


def test_dual_clip_caps_the_loss_of_a_negative_advantage() -> None:
    settings = SurrogateSettings(dual_clip=3.0)
    logp = double(math.log(2.9), math.log(3.1), math.log(3.1)).requires_grad_()
    got = token_losses(logp, double(0, 0, 0), double(-2, -2, 2), settings)
    got.sum().backward()
    assert got.tolist() == pytest.approx([5.8, 6.0, -2.4])
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([5.8, 0, 0])


SETTINGS = [SurrogateSettings(), SurrogateSettings(clip_high=0.28), SurrogateSettings(dual_clip=3.0)]


@pytest.mark.parametrize("settings", SETTINGS)
@given(st.lists(st.tuples(numbers, numbers, st.floats(0.05, 8)), min_size=1, max_size=8))
def test_a_weight_on_the_advantage_is_a_weight_on_the_loss(settings: SurrogateSettings, drawn: list[Any]) -> None:
    logp, advantage, weight = (double(*column) for column in zip(*drawn, strict=True))
    logp.requires_grad_()
    zero = torch.zeros_like(logp)

    def gradients(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), logp)[0]

    plain, weighted = (token_losses(logp, zero, a, settings) for a in (advantage, advantage * weight))
    assert torch.allclose(weighted, weight * plain, rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradients(weighted), weight * gradients(plain), rtol=1e-12, atol=1e-12)


def test_weights_of_one_are_no_weights_to_the_last_bit() -> None:
    torch.manual_seed(0)
    logp, old, advantage = (torch.randn(500) for _ in range(3))
    one = token_losses(logp, old, advantage * torch.ones(500), SurrogateSettings())
    assert torch.equal(one, token_losses(logp, old, advantage, SurrogateSettings()))


def test_no_ratio_overflows() -> None:
    assert importance_ratio(double(0, -900), double(-900, 0)).tolist() == [math.exp(20), math.exp(-20)]
    far = double(900.0).requires_grad_()
    loss = token_losses(far, double(0.0), double(-1.0), SurrogateSettings()).sum()
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(20))
    assert far.grad is not None
    assert far.grad.item() == 0


def test_k3_is_never_negative_and_clamped() -> None:
    u = torch.linspace(-30, 30, 601, dtype=torch.float64)
    got = k3_kl(u, torch.zeros_like(u))
    assert (got >= 0).all()
    assert k3_kl(double(-3.5), double(-3.5)).item() == 0
    clamped = u.clamp(-20, 20)
    assert torch.allclose(got, clamped.exp() - clamped - 1, rtol=1e-9)


def test_the_kl_term_knows_no_weights() -> None:
    torch.manual_seed(1)
    logp, old, advantage, initial = (torch.randn(40, dtype=torch.float64) for _ in range(4))

    def total(coefficient: float, a: Tensor) -> float:
        return surrogate_loss(
            logp, old, a, initial, num_tokens=40, settings=SurrogateSettings(kl=coefficient)
        ).loss.item()

    terms = [total(0.1, a) - total(0.0, a) for a in (advantage, 2 * advantage, -advantage, 0 * advantage)]
    assert terms == pytest.approx([0.1 * k3_kl(initial, logp).mean().item()] * 4)


def test_the_mean_is_over_the_whole_batch_however_it_is_split() -> None:
    torch.manual_seed(2)
    logp, old, advantage, initial = (torch.randn(30, dtype=torch.float64) for _ in range(4))
    settings = SurrogateSettings(kl=0.01)
    whole = surrogate_loss(logp, old, advantage, initial, num_tokens=30, settings=settings)
    parts = [
        surrogate_loss(logp[s], old[s], advantage[s], initial[s], num_tokens=30, settings=settings)
        for s in (slice(0, 7), slice(7, 30))
    ]
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item(), abs=1e-12)
    for name in ("clipped_sum", "ratio_sum", "kl_sum"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name))
    expected = token_losses(logp, old, advantage, settings) + 0.01 * k3_kl(initial, logp)
    assert whole.loss.item() == pytest.approx(expected.mean().item())


def test_the_clip_share_counts_what_has_no_gradient() -> None:
    logp, advantage = torch.randn(200, dtype=torch.float64).requires_grad_(), torch.randn(200, dtype=torch.float64)
    micro = surrogate_loss(
        logp, torch.zeros(200, dtype=torch.float64), advantage, None, num_tokens=200, settings=SurrogateSettings()
    )
    micro.loss.backward()
    assert logp.grad is not None
    assert micro.clipped_sum == (logp.grad == 0).sum().item() > 0


def test_kl_needs_the_initial_policy() -> None:
    with pytest.raises(ValueError, match="initial policy"):
        surrogate_loss(double(0.0), double(0.0), double(1.0), None, num_tokens=1, settings=SurrogateSettings(kl=0.1))
