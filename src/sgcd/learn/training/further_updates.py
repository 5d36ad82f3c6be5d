"""Further updates from one batch: the same rollouts, advantages and teachers, the gradient at the policy as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgcd.learn.scoring.forward import LossInputs, pack_policy_tokens, score_logprobs, unpack_policy_tokens
from sgcd.learn.scoring.teacher import TeacherTopK
from sgcd.learn.settings import CovarianceSettings, SurrogateSettings
from sgcd.learn.training.gradient import GradientAccumulator, accumulate_known_advantages, pack_tokens
from sgcd.learn.training.surrogate import PackedTokens, has_no_gradient
from sgcd.records import Flags


@dataclass(frozen=True, slots=True)
class CreditedGroup:
    """A group whose credit is known: what further updates learn from."""

    loss_inputs: list[LossInputs]
    """With the log-probabilities of the first update's pass as the old ones."""
    imitated_topk: list[TeacherTopK | None] | None = None
    """Scores of the teacher that the method imitates, one entry for each rollout."""


def accumulate_again(accumulator: GradientAccumulator, groups: Sequence[CreditedGroup], seed: int) -> None:
    """The gradient of one more update. `seed` decides which tokens clip_cov chooses."""
    if accumulator.surrogate.chooses_tokens:
        groups = choose_tokens(accumulator, groups, seed)
    for group in groups:
        accumulate_known_advantages(accumulator, group.loss_inputs, group.imitated_topk)


def choose_tokens(accumulator: GradientAccumulator, groups: Sequence[CreditedGroup], seed: int) -> list[CreditedGroup]:
    """The groups with the tokens that clip_cov or kl_cov choose. It takes a forward pass over the batch."""
    loss_inputs = [inputs for group in groups for inputs in group.loss_inputs]
    rollouts = [inputs.rollout for inputs in loss_inputs]
    logprobs = score_logprobs(accumulator.model, rollouts, accumulator.config)
    tokens = pack_tokens(pack_policy_tokens(logprobs, rollouts), loss_inputs)
    chosen = choose_by_covariance(tokens, accumulator.surrogate, np.random.default_rng(seed))
    flags: Iterator[Flags] = (array > 0 for array in unpack_policy_tokens(Tensor(chosen), rollouts))
    return [
        replace(group, loss_inputs=[replace(inputs, chosen=next(flags)) for inputs in group.loss_inputs])
        for group in groups
    ]


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
