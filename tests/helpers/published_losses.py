"""Policy gradient losses written from their papers, over padded rows in float64: an oracle of the packed ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import PackedTokens


def tokens_of(
    logprobs: Tensor, old_logprobs: Tensor, advantage: Tensor, lengths: Sequence[int] = (), **others: Any
) -> PackedTokens:
    """One rollout, or those of `lengths`."""
    return PackedTokens(
        logprobs=logprobs,
        old_logprobs=old_logprobs,
        advantage=advantage,
        lengths=lengths or [logprobs.numel()],
        **others,
    )


def drawn_tokens(lengths: Sequence[int], seed: int, drift: float = 0.6) -> PackedTokens:
    """Log-probabilities below zero, old ones near them, one advantage a rollout, a few tokens chosen."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    old = -rng.exponential(1.0, count) - 0.01
    logprobs = np.minimum(old + rng.normal(0, drift, count), -1e-3)
    return PackedTokens(
        logprobs=torch.tensor(logprobs).requires_grad_(),
        old_logprobs=torch.tensor(old),
        advantage=torch.tensor(np.repeat(rng.normal(0, 1, len(lengths)), lengths)),
        lengths=lengths,
        initial_logprobs=torch.tensor(old + rng.normal(0, drift, count)),
        chosen=torch.tensor(rng.random(count) < 0.3),
    )


class PaddedRows:
    """The same tokens as rows of one length, with a mask."""

    def __init__(self, tokens: PackedTokens) -> None:
        self.mask = torch.zeros(len(tokens.lengths), max(tokens.lengths), dtype=torch.bool)
        for row, length in enumerate(tokens.lengths):
            self.mask[row, :length] = True
        self.logprobs, self.old, self.advantage = (
            self.padded(values) for values in (tokens.logprobs, tokens.old_logprobs, tokens.advantage)
        )

    def padded(self, values: Tensor) -> Tensor:
        return torch.zeros(self.mask.shape, dtype=values.dtype).masked_scatter(self.mask, values)

    def averaged(self, values: Tensor, average: str, max_tokens: int) -> Tensor:
        values, counts = values * self.mask, self.mask.sum(1)
        if average == "token_mean":
            return values.sum() / counts.sum()
        if average == "sequence_mean":
            return (values.sum(1) / counts).mean()
        return values.sum() / (len(values) * max_tokens)


def published_loss(tokens: PackedTokens, settings: SurrogateSettings, max_tokens: int) -> Tensor:
    """The loss of a batch, one formula a method."""
    rows = PaddedRows(tokens)
    losses = _policy_losses(rows, tokens, settings)
    loss = rows.averaged(losses, settings.average, max_tokens)
    if not settings.kl:
        return loss
    assert tokens.initial_logprobs is not None
    u = rows.padded(tokens.initial_logprobs) - rows.logprobs
    kl = {"k1": -u, "k2": 0.5 * u**2, "k3": u.exp() - u - 1}[settings.kl_estimate]
    return loss + settings.kl * rows.averaged(kl, settings.average, max_tokens)


def _policy_losses(rows: PaddedRows, tokens: PackedTokens, settings: SurrogateSettings) -> Tensor:
    logp, old, a = rows.logprobs, rows.old, rows.advantage
    low, high = settings.clip, settings.clip if settings.clip_high is None else settings.clip_high
    if settings.ratio == "none":
        return -logp * a
    rho = (logp - old).exp()
    if settings.ratio == "sequence":
        rho = (((logp - old) * rows.mask).sum(1) / rows.mask.sum(1)).exp()[:, None]
    clipped = torch.maximum(-rho * a, -rho.clamp(1 - low, 1 + high) * a)
    if settings.dual_clip is not None:
        clipped = torch.where(a < 0, torch.minimum(clipped, -settings.dual_clip * a), clipped)
    assert tokens.chosen is not None
    chosen = rows.padded(tokens.chosen)
    p, before = logp.detach().exp(), old.exp()
    if settings.trust_region == "clip":
        return clipped
    if settings.trust_region == "clip_cov":
        return clipped * ~chosen
    if settings.trust_region == "kl_cov":
        return -rho * a + torch.where(chosen, (logp - old).abs(), 0.0)
    if settings.trust_region == "dppo_tv":
        distance = (p - before).abs()
    else:
        distance = before * (before / p).log() + (1 - before) * ((1 - before) / (1 - p)).log()
    outside = torch.where(a > 0, (p > before) & (distance > high), (p < before) & (distance > low))
    return -a * rho.detach() * ~outside * (logp - logp.detach() + 1)
