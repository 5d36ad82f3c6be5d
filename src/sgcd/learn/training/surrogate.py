"""The policy gradient: advantages of a group, the loss of each token under a ratio and a trust region, the average."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgcd.credit.advantage import advantages, overlong_penalties
from sgcd.learn.settings import CovarianceSettings, SurrogateSettings
from sgcd.records import Flags, Group, Rollout

_MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this size before they are exponentiated."""
_MIN_REST = 1e-8
"""Least probability of all tokens but the sampled one, in dppo_kl."""


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The size of a whole batch: what its losses are averaged over, however it is split into micro-batches."""

    num_tokens: int
    """Tokens that the policy wrote."""
    num_rollouts: int
    """Rollouts in which it wrote any."""
    max_tokens: int = 1
    """Most tokens of one response, for the average `constant`."""

    @classmethod
    def of(cls, rollouts: Iterable[Rollout], max_tokens: int = 1) -> Self:
        counts = [rollout.num_policy_tokens for rollout in rollouts]
        return cls(sum(counts), sum(count > 0 for count in counts), max_tokens)

    def denominator(self, average: Literal["token_mean", "sequence_mean", "constant"]) -> int:
        """By what the sum over a batch is divided; at least one."""
        if average == "token_mean":
            return max(self.num_tokens, 1)
        return max(self.num_rollouts, 1) * (self.max_tokens if average == "constant" else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTokens:
    """The policy's tokens of a micro-batch, rollout after rollout; each tensor has one entry a token."""

    logprobs: Tensor
    """log p(y_t), with a gradient."""
    old_logprobs: Tensor
    """By the policy before the first update of the batch."""
    advantage: Tensor
    lengths: Sequence[int]
    """The number of these tokens in each rollout."""
    initial_logprobs: Tensor | None = None
    """By the initial policy, where there is a KL term."""
    chosen: Tensor | None = None
    """True at tokens that clip_cov or kl_cov chose; None where none are."""


def surrogate_advantages(group: Group, surrogate: SurrogateSettings, max_tokens: int) -> NDArray[np.float64]:
    """Each rollout's advantage by the surrogate's baseline, scale and overlong shaping."""
    rewards = np.array([rollout.reward for rollout in group.rollouts], np.float64)
    if surrogate.overlong is not None:
        lengths = [len(rollout.response) for rollout in group.rollouts]
        share, penalty = surrogate.overlong.share, surrogate.overlong.penalty
        rewards -= overlong_penalties(lengths, max_tokens, share=share, penalty=penalty)
    return advantages(rewards, surrogate.baseline, surrogate.scale_by_std)


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """rho_t = exp(logp_t - old_logp_t), the exponent clamped to [-20, 20]."""
    return _clamped_exp(logprobs - old_logprobs)


def sequence_ratio(tokens: PackedTokens) -> Tensor:
    """s_k = exp(mean_t (logp_t - old_logp_t)) at each token of rollout k (2507.18071).

    The value is that of the rollout, the gradient that of the token's own log-probability: GSPO-token, which is GSPO
    where all tokens of a rollout have one advantage.
    """
    log_ratio = (tokens.logprobs - tokens.old_logprobs).detach()
    means = [part.mean() for part in log_ratio.split(list(tokens.lengths)) if len(part)]
    lengths = torch.tensor([length for length in tokens.lengths if length], device=log_ratio.device)
    of_rollout = torch.stack(means).repeat_interleave(lengths) if means else log_ratio
    return _clamped_exp(tokens.logprobs - tokens.logprobs.detach() + of_rollout)


def ratio_bounds(advantage: Tensor, settings: SurrogateSettings) -> tuple[Tensor, Tensor]:
    """Between which ratios a token of this advantage still has a gradient.

    -min(rho A, clip(rho) A) equals -A times rho held below 1 + clip_high where A > 0 and above 1 - clip where A < 0;
    dual clip (1912.09729) also holds it below dual_clip where A < 0. Linear in A on either side of zero: a positive
    weight on A is the same weight on the token's loss.
    """
    dual_clip = float("inf") if settings.dual_clip is None else settings.dual_clip
    negative = advantage < 0
    low = torch.zeros_like(advantage).masked_fill(negative, 1 - settings.clip)
    high = torch.full_like(advantage, 1 + settings.highest_clip).masked_fill(negative, dual_clip)
    return low, high


def leaves_region(tokens: PackedTokens, settings: SurrogateSettings) -> Tensor:
    """DPPO's mask (2602.04879): tokens that have left the trust region and move further out.

    Upwards where A > 0, once the distance is above clip_high; downwards where A < 0, once it is above clip. The
    distance is that of two Bernoulli distributions, the sampled token against all others: total variation
    |p - p_old| in dppo_tv, KL(p_old || p) in dppo_kl.
    """
    logprobs, old_logprobs = tokens.logprobs.detach(), tokens.old_logprobs
    p, old_p = logprobs.exp(), old_logprobs.exp()
    if settings.trust_region == "dppo_tv":
        distance = (p - old_p).abs()
    else:
        rest, old_rest = ((1 - probability).clamp(min=_MIN_REST) for probability in (p, old_p))
        distance = old_p * (old_logprobs - logprobs) + (1 - old_p) * (old_rest.log() - rest.log())
    upwards = (tokens.advantage > 0) & (p > old_p) & (distance > settings.highest_clip)
    return upwards | ((tokens.advantage < 0) & (p < old_p) & (distance > settings.clip))


def has_no_gradient(tokens: PackedTokens, settings: SurrogateSettings) -> Tensor:
    """Tokens that the trust region keeps from moving the policy."""
    region, nowhere = settings.trust_region, torch.zeros_like(tokens.advantage, dtype=torch.bool)
    if settings.ratio == "none" or region == "kl_cov":
        return nowhere
    if region in ("dppo_tv", "dppo_kl"):
        return leaves_region(tokens, settings)
    with torch.no_grad():
        ratio = _ratio(tokens, settings)
    low, high = ratio_bounds(tokens.advantage, settings)
    chosen = nowhere if region == "clip" or tokens.chosen is None else tokens.chosen
    return (ratio < low) | (ratio > high) | chosen


def token_losses(tokens: PackedTokens, settings: SurrogateSettings) -> Tensor:
    """The loss of each token. By trust region:

    - clip: -min(rho_t A_t, clip(rho_t, 1 - clip, 1 + clip_high) A_t) (1707.06347);
    - dppo_tv, dppo_kl: -rho_t A_t, and nothing where `leaves_region`;
    - clip_cov: as clip, and nothing at the chosen tokens (2505.22617);
    - kl_cov: -rho_t A_t, and kl_coefficient |logp_t - old_logp_t| more at the chosen tokens (2505.22617).

    Without a ratio it is -A_t logp_t (2504.02546).
    """
    if settings.ratio == "none":
        return -tokens.advantage * tokens.logprobs
    ratio, region = _ratio(tokens, settings), settings.trust_region
    if region in ("clip", "clip_cov"):
        low, high = ratio_bounds(tokens.advantage, settings)
        losses = -tokens.advantage * torch.clamp(ratio, low, high)
        return losses if region == "clip" or tokens.chosen is None else losses.masked_fill(tokens.chosen, 0.0)
    losses = -tokens.advantage * ratio
    if region == "kl_cov":
        if tokens.chosen is None:
            return losses
        coefficient = (settings.covariance or CovarianceSettings()).kl_coefficient
        return losses + coefficient * (tokens.logprobs - tokens.old_logprobs).abs() * tokens.chosen
    return losses.masked_fill(leaves_region(tokens, settings), 0.0)


def kl_estimate(initial_logprobs: Tensor, logprobs: Tensor, kind: Literal["k1", "k2", "k3"] = "k3") -> Tensor:
    """Estimates of KL(p || p_initial) with u = initial_logp - logp, clamped: k1 = -u, k2 = u^2 / 2 and
    k3 = exp(u) - u - 1, which is never negative."""
    log_ratio = (initial_logprobs - logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    if kind == "k1":
        return -log_ratio
    return log_ratio.square() / 2 if kind == "k2" else torch.expm1(log_ratio) - log_ratio


@dataclass(frozen=True, slots=True)
class MicroBatchLoss:
    """What one micro-batch adds to the batch: the loss to differentiate, and sums over tokens for the metrics."""

    loss: Tensor
    """Already divided by the whole batch's size: micro-batches add up to the batch's loss."""
    clipped_sum: float
    ratio_sum: float
    kl_sum: float


def sum_for_average(values: Tensor, lengths: Sequence[int], settings: SurrogateSettings) -> Tensor:
    """Over tokens; for `sequence_mean` over rollouts, of the mean over each one's tokens."""
    if settings.average != "sequence_mean":
        return values.sum()
    counts = torch.tensor(lengths, device=values.device)
    return (values / counts.repeat_interleave(counts)).sum()


def surrogate_loss(tokens: PackedTokens, size: BatchSize, settings: SurrogateSettings) -> MicroBatchLoss:
    """sum_t (l_t + kl * k_t) / size; `size` is that of the whole batch.

    The KL term knows nothing of advantages or weights.
    """
    loss = sum_for_average(token_losses(tokens, settings), tokens.lengths, settings)
    kl_sum = 0.0
    if settings.kl > 0:
        if tokens.initial_logprobs is None:
            raise ValueError("surrogate: kl is above zero, so log-probabilities of the initial policy are needed")
        kl = kl_estimate(tokens.initial_logprobs, tokens.logprobs, settings.kl_estimate)
        loss = loss + settings.kl * sum_for_average(kl, tokens.lengths, settings)
        kl_sum = float(kl.detach().sum())
    with torch.no_grad():
        ratio = importance_ratio(tokens.logprobs, tokens.old_logprobs)
        clipped = has_no_gradient(tokens, settings).sum()
    return MicroBatchLoss(loss / size.denominator(settings.average), float(clipped), float(ratio.sum()), kl_sum)


def _clamped_exp(log_ratio: Tensor) -> Tensor:
    return torch.exp(log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def _ratio(tokens: PackedTokens, settings: SurrogateSettings) -> Tensor:
    if settings.ratio == "sequence":
        return sequence_ratio(tokens)
    return importance_ratio(tokens.logprobs, tokens.old_logprobs)


def choose_by_covariance(tokens: PackedTokens, settings: SurrogateSettings, rng: np.random.Generator) -> Flags:
    """The tokens of a whole batch whose cov_t = (A_t - mean A) (logp_t - mean logp) is high (2505.22617).

    kl_cov takes the highest. clip_cov draws among those between `low` and `high` that are not clipped already.
    """
    covariance_settings = settings.covariance or CovarianceSettings()
    covariance = _centre(tokens.advantage) * _centre(tokens.logprobs)
    number, chosen = max(1, int(covariance_settings.share * len(covariance))), np.zeros(len(covariance), np.bool_)
    if settings.trust_region == "kl_cov":
        chosen[np.argsort(-covariance, kind="stable")[:number]] = True
        return chosen
    is_within = (covariance > covariance_settings.low) & (covariance < covariance_settings.high)
    candidates = np.flatnonzero(is_within & ~has_no_gradient(tokens, settings).cpu().numpy())
    chosen[rng.permutation(candidates)[:number]] = True
    return chosen


def _centre(values: Tensor) -> NDArray[np.float64]:
    array = values.detach().double().cpu().numpy()
    return array - array.mean() if array.size else array
