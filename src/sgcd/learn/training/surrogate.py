"""The clipped policy gradient, token by token, and its mean over every token that the policy wrote in a whole batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgcd.learn.settings import SurrogateSettings

_MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this size before they are exponentiated."""


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """rho_t = exp(logp_t - old_logp_t), the exponent clamped to [-20, 20]."""
    return torch.exp((logprobs - old_logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def ratio_bounds(advantage: Tensor, settings: SurrogateSettings) -> tuple[Tensor, Tensor]:
    """Between which ratios a token of this advantage still has a gradient.

    -min(rho A, clip(rho) A) equals -A times rho held below 1 + clip_high where A > 0 and above 1 - clip where A < 0;
    dual clip (1912.09729) also holds it below dual_clip where A < 0. Linear in A on either side of zero: a positive
    weight on A is the same weight on the token's loss.
    """
    clip_high = settings.clip if settings.clip_high is None else settings.clip_high
    dual_clip = float("inf") if settings.dual_clip is None else settings.dual_clip
    negative = advantage < 0
    low = torch.zeros_like(advantage).masked_fill(negative, 1 - settings.clip)
    high = torch.full_like(advantage, 1 + clip_high).masked_fill(negative, dual_clip)
    return low, high


def token_losses(logprobs: Tensor, old_logprobs: Tensor, advantage: Tensor, settings: SurrogateSettings) -> Tensor:
    """-min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip_high) A_t), token by token (1707.06347)."""
    low, high = ratio_bounds(advantage, settings)
    return -advantage * torch.clamp(importance_ratio(logprobs, old_logprobs), low, high)


def k3_kl(initial_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """exp(u) - u - 1 with u = initial_logp - logp, clamped: a KL estimate that is never negative."""
    log_ratio = (initial_logprobs - logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return torch.expm1(log_ratio) - log_ratio


@dataclass(frozen=True, slots=True)
class MicroBatchLoss:
    """What one micro-batch adds to the batch: the loss to differentiate, and sums over tokens for the metrics."""

    loss: Tensor
    """Already divided by the whole batch's token count: micro-batches add up to the batch's loss."""
    clipped_sum: float
    ratio_sum: float
    kl_sum: float


def surrogate_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantage: Tensor,
    initial_logprobs: Tensor | None,
    *,
    num_tokens: int,
    settings: SurrogateSettings,
) -> MicroBatchLoss:
    """sum_t (l_t + kl * k3_t) / num_tokens over policy tokens; `num_tokens` counts the whole batch (token-mean).

    The KL term knows nothing of advantages or weights.
    """
    loss = token_losses(logprobs, old_logprobs, advantage, settings).sum()
    kl = torch.zeros_like(loss)
    if settings.kl > 0:
        if initial_logprobs is None:
            raise ValueError("surrogate: kl is above zero, so log-probabilities of the initial policy are needed")
        kl = k3_kl(initial_logprobs, logprobs).sum()
        loss = loss + settings.kl * kl
    with torch.no_grad():
        ratio = importance_ratio(logprobs, old_logprobs)
        low, high = ratio_bounds(advantage, settings)
        clipped = ((ratio < low) | (ratio > high)).sum()
    return MicroBatchLoss(loss / max(num_tokens, 1), float(clipped), float(ratio.sum()), float(kl.detach()))
