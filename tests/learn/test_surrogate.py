"""The surrogate against the formulas as they are published, at its boundaries, and under weights."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor

from helpers.published_losses import drawn_tokens, published_loss, tokens_of
from sgcd.learn.settings import CovarianceSettings, SurrogateSettings
from sgcd.learn.training.surrogate import (
    BatchSize,
    PackedTokens,
    choose_by_covariance,
    has_no_gradient,
    importance_ratio,
    kl_estimate,
    sequence_ratio,
    surrogate_loss,
    token_losses,
)

MAX_TOKENS = 11
PLAIN, DUAL = SurrogateSettings(), SurrogateSettings(dual_clip=3.0)
HIGHER = SurrogateSettings(clip_high=0.28)
SEQUENCE = SurrogateSettings(ratio="sequence", clip=0.05, clip_high=0.1)
NO_RATIO = SurrogateSettings(ratio="none")
TV, KL = (SurrogateSettings(trust_region=name, clip=0.05, clip_high=0.08) for name in ("dppo_tv", "dppo_kl"))
CLIP_COV, KL_COV = SurrogateSettings(trust_region="clip_cov"), SurrogateSettings(trust_region="kl_cov")
EVERY = [PLAIN, DUAL, HIGHER, SEQUENCE, NO_RATIO, TV, KL, CLIP_COV, KL_COV]
HOMOGENEOUS = [settings for settings in EVERY if not settings.chooses_tokens]
AVERAGES = ["token_mean", "sequence_mean", "constant"]

lengths = st.lists(st.integers(1, 5), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)
sixty = examples(max_examples=60, deadline=None)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradient(loss: Tensor, tokens: PackedTokens) -> Tensor:
    return torch.autograd.grad(loss, tokens.logprobs)[0]


def size_of(tokens: PackedTokens) -> BatchSize:
    return BatchSize(sum(tokens.lengths), len(tokens.lengths), MAX_TOKENS)


@sixty
@given(st.sampled_from(EVERY), lengths, seeds, st.sampled_from(AVERAGES), st.sampled_from(["none", "k1", "k2", "k3"]))
def test_it_is_the_published_formula(
    settings: SurrogateSettings, lengths: list[int], seed: int, average: Any, kl: Any
) -> None:
    kl_keys = {} if kl == "none" else {"kl": 0.3, "kl_estimate": kl}
    settings = settings.model_copy(update={"average": average, **kl_keys})
    tokens = drawn_tokens(lengths, seed)
    got = surrogate_loss(tokens, size_of(tokens), settings).loss
    expected = published_loss(tokens, settings, MAX_TOKENS)
    if settings.trust_region not in ("dppo_tv", "dppo_kl"):  # published as a gradient alone
        assert got.item() == pytest.approx(expected.item(), abs=1e-10)
    assert torch.allclose(gradient(got, tokens), gradient(expected, tokens), atol=1e-10)


@sixty
@given(st.sampled_from(EVERY), lengths, seeds, st.sampled_from(AVERAGES))
def test_before_the_first_update_all_have_the_gradient_of_the_policy(
    settings: SurrogateSettings, lengths: list[int], seed: int, average: Any
) -> None:
    """All ratios are one: -A grad log p, whatever bounds it."""
    drawn = drawn_tokens(lengths, seed)
    tokens = replace(drawn, old_logprobs=drawn.logprobs.detach(), chosen=None)
    settings = settings.model_copy(update={"average": average})
    plain = NO_RATIO.model_copy(update={"average": average})
    got, expected = (surrogate_loss(tokens, size_of(tokens), each) for each in (settings, plain))
    assert torch.allclose(gradient(got.loss, tokens), gradient(expected.loss, tokens), rtol=1e-12, atol=0)
    assert got.clipped_sum == 0
    assert got.ratio_sum == sum(lengths)


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
    got = token_losses(tokens_of(logp, double(0.0), double(advantage)), SurrogateSettings(clip=0.2))
    got.sum().backward()
    assert got.item() == pytest.approx(loss)
    assert logp.grad is not None
    assert logp.grad.item() == pytest.approx(slope)


def test_dual_clip_caps_the_loss_of_a_negative_advantage() -> None:
    logp = double(math.log(2.9), math.log(3.1), math.log(3.1)).requires_grad_()
    got = token_losses(tokens_of(logp, double(0, 0, 0), double(-2, -2, 2)), DUAL)
    got.sum().backward()
    assert got.tolist() == pytest.approx([5.8, 6.0, -2.4])
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([5.8, 0, 0])


@pytest.mark.parametrize(
    ("region", "probability", "advantage", "moves"),
    [
        ("dppo_tv", 0.54, 1.0, True),
        ("dppo_tv", 0.56, 1.0, False),
        ("dppo_tv", 0.56, -1.0, True),  # on its way back
        ("dppo_tv", 0.46, -1.0, True),
        ("dppo_tv", 0.44, -1.0, False),
        ("dppo_tv", 0.44, 1.0, True),
        ("dppo_kl", 0.65, 1.0, True),  # KL of (.5, .5) from it: .0471
        ("dppo_kl", 0.66, 1.0, False),  # .0539
        ("dppo_kl", 0.34, 1.0, True),
        ("dppo_kl", 0.34, -1.0, False),
    ],
)
def test_on_either_side_of_a_divergence(region: Any, probability: float, advantage: float, moves: bool) -> None:
    """A token of probability one half, with thresholds of .05: a rare token may still double its ratio."""
    settings = SurrogateSettings(trust_region=region, clip=0.05)
    tokens = tokens_of(double(math.log(probability)), double(math.log(0.5)), double(advantage))
    assert has_no_gradient(tokens, settings).tolist() == [not moves]
    rare = tokens_of(double(math.log(0.02)), double(math.log(0.01)), double(1.0))
    assert not has_no_gradient(rare, settings).any()


def test_the_ratio_of_a_rollout_is_the_geometric_mean_of_its_tokens() -> None:
    log_ratio = double(0.2, -0.4, 0.5, 0.1, 0.3).requires_grad_()
    tokens = tokens_of(log_ratio, torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64), [2, 0, 3])
    got = sequence_ratio(tokens)
    assert got.tolist() == pytest.approx([math.exp(-0.1)] * 2 + [math.exp(0.3)] * 3)
    assert gradient(got[3], tokens).tolist() == pytest.approx([0, 0, 0, math.exp(0.3), 0])


@sixty
@given(st.sampled_from(HOMOGENEOUS), lengths, seeds)
def test_a_weight_on_the_advantage_is_a_weight_on_the_loss(
    settings: SurrogateSettings, lengths: list[int], seed: int
) -> None:
    tokens = drawn_tokens(lengths, seed)
    weight = torch.tensor(np.random.default_rng(seed).uniform(0.05, 8, sum(lengths)))
    plain = token_losses(tokens, settings)
    weighted = token_losses(replace(tokens, advantage=tokens.advantage * weight), settings)
    assert torch.allclose(weighted, weight * plain, rtol=1e-12, atol=1e-12)
    slopes = [gradient(losses.sum(), tokens) for losses in (weighted, plain)]
    assert torch.allclose(slopes[0], weight * slopes[1], rtol=1e-12, atol=1e-12)


def test_weights_of_one_are_no_weights_to_the_last_bit() -> None:
    torch.manual_seed(0)
    logp, old, advantage = (torch.randn(500) for _ in range(3))
    one = token_losses(tokens_of(logp, old, advantage * torch.ones(500)), PLAIN)
    assert torch.equal(one, token_losses(tokens_of(logp, old, advantage), PLAIN))


def test_no_ratio_overflows() -> None:
    assert importance_ratio(double(0, -900), double(-900, 0)).tolist() == [math.exp(20), math.exp(-20)]
    far = double(900.0).requires_grad_()
    loss = token_losses(tokens_of(far, double(0.0), double(-1.0)), PLAIN).sum()
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(20))
    assert far.grad is not None
    assert far.grad.item() == 0


def test_k3_is_never_negative_and_clamped() -> None:
    u = torch.linspace(-30, 30, 601, dtype=torch.float64)
    got = kl_estimate(u, torch.zeros_like(u))
    assert (got >= 0).all()
    assert kl_estimate(double(-3.5), double(-3.5)).item() == 0
    clamped = u.clamp(-20, 20)
    assert torch.allclose(got, clamped.exp() - clamped - 1, rtol=1e-9)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_expected_gradient_of_an_estimate(kind: Any) -> None:
    """Over a whole distribution: that of k2 is the gradient of KL(p || p_initial), that of k1 is zero, and that of k3
    the gradient of KL(p_initial || p)."""
    torch.manual_seed(4)
    logits, initial = torch.randn(6, dtype=torch.float64).requires_grad_(), torch.randn(6, dtype=torch.float64)
    p, q = logits.log_softmax(0), initial.log_softmax(0)
    expected = {"k1": 0 * p.sum(), "k2": (p.exp() * (p - q)).sum(), "k3": (q.exp() * (q - p)).sum()}[kind]
    estimate = (p.exp().detach() * kl_estimate(q, p, kind)).sum()
    slopes = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (estimate, expected)]
    assert torch.allclose(slopes[0], slopes[1], atol=1e-12)
    assert (slopes[1].abs().max() > 0.01) == (kind != "k1")


def test_the_kl_term_knows_no_weights() -> None:
    tokens = drawn_tokens([7, 3], 1)
    assert tokens.initial_logprobs is not None

    def total(coefficient: float, advantage: Tensor) -> float:
        given = replace(tokens, advantage=advantage)
        return surrogate_loss(given, size_of(given), SurrogateSettings(kl=coefficient)).loss.item()

    a = tokens.advantage
    terms = [total(0.1, each) - total(0.0, each) for each in (a, 2 * a, -a, 0 * a)]
    assert terms == pytest.approx([0.1 * kl_estimate(tokens.initial_logprobs, tokens.logprobs).mean().item()] * 4)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("settings", [PLAIN, SEQUENCE, KL_COV], ids=["plain", "sequence", "kl_cov"])
def test_the_average_is_over_the_whole_batch_however_it_is_split(average: Any, settings: SurrogateSettings) -> None:
    settings = settings.model_copy(update={"average": average, "kl": 0.01})
    tokens = drawn_tokens([4, 3, 9, 1], 2)
    whole = surrogate_loss(tokens, size_of(tokens), settings)

    def part(start: int, stop: int, lengths: list[int]) -> PackedTokens:
        names = ("logprobs", "old_logprobs", "advantage", "initial_logprobs", "chosen")
        return replace(tokens, lengths=lengths, **{name: getattr(tokens, name)[start:stop] for name in names})

    parts = [surrogate_loss(each, size_of(tokens), settings) for each in (part(0, 7, [4, 3]), part(7, 17, [9, 1]))]
    assert sum(each.loss.item() for each in parts) == pytest.approx(whole.loss.item(), abs=1e-12)
    for name in ("clipped_sum", "ratio_sum", "kl_sum"):
        assert sum(getattr(each, name) for each in parts) == pytest.approx(getattr(whole, name))


@pytest.mark.parametrize("settings", [PLAIN, DUAL, SEQUENCE, TV, KL, CLIP_COV], ids=lambda each: each.trust_region)
def test_the_clip_share_counts_what_has_no_gradient(settings: SurrogateSettings) -> None:
    tokens = drawn_tokens([5] * 40, 3)
    micro = surrogate_loss(tokens, size_of(tokens), settings)
    assert micro.clipped_sum == (gradient(micro.loss, tokens) == 0).sum().item() > 0


def test_kl_needs_the_initial_policy() -> None:
    with pytest.raises(ValueError, match="initial policy"):
        surrogate_loss(tokens_of(double(0.0), double(0.0), double(1.0)), BatchSize(1, 1), SurrogateSettings(kl=0.1))


@sixty
@given(seeds, st.sampled_from([0.01, 0.1, 0.5]))
def test_kl_cov_chooses_the_highest_covariances(seed: int, share: float) -> None:
    tokens = drawn_tokens([5] * 8, seed)
    settings = SurrogateSettings(trust_region="kl_cov", covariance=CovarianceSettings(share=share))
    chosen = choose_by_covariance(tokens, settings, np.random.default_rng(0))
    covariance = covariance_of(tokens)
    assert chosen.sum() == max(1, int(share * 40))
    assert covariance[chosen].min() >= covariance[~chosen].max()


@sixty
@given(seeds)
def test_clip_cov_draws_among_those_within_bounds_that_still_move(seed: int) -> None:
    tokens = replace(drawn_tokens([5] * 8, seed), chosen=None)
    bounds = CovarianceSettings(share=0.1, low=0.05, high=0.8)
    settings = SurrogateSettings(trust_region="clip_cov", covariance=bounds)
    draws = [choose_by_covariance(tokens, settings, np.random.default_rng(salt)) for salt in range(9)]
    covariance, clipped = covariance_of(tokens), has_no_gradient(tokens, PLAIN).numpy()
    candidates = (covariance > 0.05) & (covariance < 0.8) & ~clipped
    assert {int(chosen.sum()) for chosen in draws} == {min(4, int(candidates.sum()))}
    assert not any((chosen & ~candidates).any() for chosen in draws)
    assert np.array_equal(draws[3], choose_by_covariance(tokens, settings, np.random.default_rng(3)))
    if candidates.sum() > 6:
        assert len({chosen.tobytes() for chosen in draws}) > 1


def covariance_of(tokens: PackedTokens) -> Any:
    a, logp = tokens.advantage.numpy(), tokens.logprobs.detach().numpy()
    return (a - a.mean()) * (logp - logp.mean())
