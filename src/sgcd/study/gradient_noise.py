"""Measures how well the policy gradients of different batches agree: the mean cosine over pairs of batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit_records import Credit, Signal
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.gradient import CreditedGroup, GradientAccumulator, accumulate_credited_group
from sgcd.learn.training.surrogate import BatchSize
from sgcd.measure.statistics import Float64Array, jackknife_estimate
from sgcd.records import Floats
from sgcd.study.score_groups import LAB_FORWARD, ScoredRollout
from sgcd.study.weightings import RolloutWithTruth

GroupGradients = NDArray[np.float32]
"""One row per group, one column per parameter."""
BatchPairs = tuple[Float64Array, Float64Array]
"""The groups of the first batch of each pair, and those of the second: [pairs, groups], zeros and ones."""
_GROUPS_PER_BATCH = 4
"""Groups per batch, if there are enough for two batches and one group that is left out."""
_NUM_PAIRS = 20000


def measure_gradient_agreement(
    model: Any, samples: Sequence[RolloutWithTruth], weights: Mapping[str, Sequence[Floats]], seed: int = 0
) -> dict[str, Any]:
    """Agreement of batches under each weighting, raw and scaled, and its difference from GRPO's."""
    groups = sorted({sample.scored.group_index for sample in samples})
    size = max(1, min(_GROUPS_PER_BATCH, (len(groups) - 1) // 2))
    pairs = draw_batch_pairs(len(groups), size, np.random.default_rng(seed))
    raw_by_arm, scaled_by_arm = dict[str, Float64Array](), dict[str, Float64Array]()
    for name, arm_weights in weights.items():
        weighted = list(zip((sample.scored for sample in samples), arm_weights, strict=True))
        group_gradients = compute_group_gradients(
            model, [_credit_group([pair for pair in weighted if pair[0].group_index == index]) for index in groups]
        )
        raw_by_arm[name] = leave_one_out_cosines(group_gradients, pairs)
        scaled_by_arm[name] = leave_one_out_cosines(scale_like_adam(group_gradients, size), pairs)
    return {
        "groups": len(groups),
        "batch": size,
        "raw": _compare_with_grpo(raw_by_arm),
        "scaled": _compare_with_grpo(scaled_by_arm),
    }


def _credit_group(weighted: Sequence[tuple[ScoredRollout, Floats]]) -> CreditedGroup:
    """Weights may be zero here, which no credit allows, so that they go into a pull."""
    token_advantages = [(np.float32(scored.advantage) * weight).astype(np.float32) for scored, weight in weighted]
    return CreditedGroup(
        rollouts=[scored.rollout for scored, _ in weighted],
        signals=[Signal(Credit(0.0, np.ones_like(pull)), pull=pull) for pull in token_advantages],
        terms={"old_logprobs": [scored.logprobs for scored, _ in weighted]},
    )


def compute_group_gradients(model: Any, groups: Sequence[CreditedGroup]) -> GroupGradients:
    """Each group's sum of token gradients, from the clipped surrogate; a batch's gradient is their scaled sum."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    group_gradients: list[GroupGradients] = []
    for group in groups:
        model.zero_grad(set_to_none=True)
        size = BatchSize.of(group.rollouts)
        accumulator = GradientAccumulator(model=model, surrogate=SurrogateSettings(), size=size, config=LAB_FORWARD)
        accumulate_credited_group(accumulator, group)
        group_gradients.append(
            size.num_tokens * np.concatenate([parameter.grad.numpy().ravel() for parameter in parameters])
        )
    model.zero_grad(set_to_none=True)
    return np.stack(group_gradients)


def draw_batch_pairs(groups: int, size: int, rng: np.random.Generator) -> BatchPairs:
    """Pairs of batches that share no group."""
    order = rng.permuted(np.tile(np.arange(groups), (_NUM_PAIRS, 1)), axis=1)
    first, second = np.zeros((2, _NUM_PAIRS, groups))
    np.put_along_axis(first, order[:, :size], 1, axis=1)
    np.put_along_axis(second, order[:, size : 2 * size], 1, axis=1)
    return first, second


def scale_like_adam(group_gradients: GroupGradients, size: int) -> GroupGradients:
    """Divide each parameter by its root mean square over batches of `size` groups, which is Adam's long-run scale.

    E(sum of n)^2 = n E(s^2) + n (n - 1) (E s)^2 for independent s.
    """
    mean, square = group_gradients.mean(axis=0), np.square(group_gradients).mean(axis=0)
    root = np.sqrt(size * square + size * (size - 1) * np.square(mean))
    root[root == 0] = 1
    return group_gradients / root


def leave_one_out_cosines(group_gradients: GroupGradients, pairs: BatchPairs) -> Float64Array:
    """The mean cosine over all pairs of batches, then over the pairs without group 0, 1, ...

    The cosine of a batch without a gradient is 0.
    """
    gram = (group_gradients @ group_gradients.T).astype(np.float64)
    first, second = pairs
    inner = ((first @ gram) * second).sum(axis=1)
    norms = np.sqrt(((first @ gram) * first).sum(axis=1) * ((second @ gram) * second).sum(axis=1))
    cosine = np.divide(inner, norms, out=np.zeros_like(inner), where=norms > 0)
    without = 1 - first - second
    count, mean = without.sum(axis=0), cosine.mean()
    return np.append(mean, np.divide(cosine @ without, count, out=np.full(len(count), mean), where=count > 0))


def _compare_with_grpo(values: Mapping[str, Float64Array]) -> dict[str, Any]:
    return {
        name: {
            "agreement": jackknife_estimate(arm_values).to_json(),
            "less grpo": jackknife_estimate(arm_values - values["grpo"]).to_json(),
        }
        for name, arm_values in values.items()
    }
