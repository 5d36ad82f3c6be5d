"""Turns saliency into weights, which are positive, bounded, and 1 on tokens without credit."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.segments import Doubles
from sgcd.credit_records import Segments
from sgcd.records import Flags, Floats, check_length


def weigh(
    saliency: NDArray[Any],
    creditable: Flags | None = None,
    *,
    gamma: float = 1.0,
    cap: float = 2.0,
    floor: float = 1.0,
    mean_one: bool = False,
) -> Floats:
    """W_t = clip(1 + gamma s_t, floor, cap) (equation 4, when the floor is 1). W_t = 1 exactly on other tokens.

    `creditable` is True on policy tokens outside literals. A NaN or an infinity in the saliency counts as 0.

    A floor below 1 is an extension: in a rollout with segments, s_t = -1 outside them, so that the other tokens lose
    weight. `mean_one` then finds the scale a > 0 at which clip(a W_t, floor, cap) has mean 1 over the creditable
    tokens. A rollout without segments keeps weight 1.
    """
    s = np.asarray(saliency, dtype=np.float64)
    is_creditable = np.ones(len(s), dtype=bool) if creditable is None else np.asarray(creditable, dtype=bool)
    check_length("weights", "creditable", is_creditable, len(s))
    s = np.where(is_creditable & np.isfinite(s), s, 0.0)
    if floor < 1 and (s > 0).any():
        s = np.where(s > 0, s, -1.0)
    with np.errstate(over="ignore"):
        weight = np.clip(1.0 + gamma * s, floor, cap)
    if mean_one and is_creditable.any():
        weight[is_creditable] = _scale_to_mean_one(weight[is_creditable], floor, cap)
    weight[~is_creditable] = 1.0
    return weight.astype(np.float32)


def weigh_between(
    share: NDArray[Any], creditable: Flags, *, low: float, high: float, mean_one: bool = False
) -> tuple[Floats, tuple[float, float]]:
    """W_t = low + (high - low) share_t on creditable tokens, 1 on others; and the bounds of such weights.

    `mean_one` divides by the mean over the creditable tokens, so that weights lie in [low / high, high / low]. A NaN or
    an infinity in the share counts as 0.
    """
    check_length("weights", "creditable", creditable, len(share))
    s = np.where(creditable & np.isfinite(share), share, 0.0).astype(np.float64)
    weight = low + (high - low) * np.clip(s, 0, 1)
    bounds = (low, high)
    if mean_one and creditable.any():
        weight /= weight[creditable].mean()
        bounds = (low / high, high / low)
    weight[~creditable] = 1.0
    floor, cap = min(1.0, bounds[0]), max(1.0, bounds[1])
    return np.clip(weight.astype(np.float32), np.float32(floor), np.float32(cap)), (floor, cap)


def drop_disagreeing_segments(segments: Segments, advantage: float, teacher_logprob_gap: Floats) -> Segments:
    """Keep the segments whose first token has A * gap >= 0: teacher and advantage move that token the same way.

    This is an extension. The published divergence has no sign, so a success gets most credit where the teacher
    disagrees with it.
    """
    kept = tuple(span for span in segments.spans if advantage * float(teacher_logprob_gap[span.start]) >= 0)
    inside = np.zeros(len(segments.saliency), dtype=bool)
    for span in kept:
        inside[span.start : span.stop] = True
    return replace(segments, spans=kept, saliency=np.where(inside, segments.saliency, np.float32(0)))


def _scale_to_mean_one(weight: Doubles, floor: float, cap: float) -> Doubles:
    """clip(a w, floor, cap) with the scale a that gives mean one.

    The mean is linear in a between two breakpoints, at which a weight reaches a bound. A binary search finds the two
    breakpoints around the solution; the scale between them is a linear equation.
    """
    values, counts = np.unique(weight, return_counts=True)

    def total(scale: float) -> float:
        return float(counts @ np.clip(scale * values, floor, cap))

    breakpoints = np.unique(np.concatenate((floor / values, cap / values)))
    low, high = 0, breakpoints.size - 1  # all at the floor, all at the cap
    while high - low > 1:
        middle = (low + high) // 2
        if total(float(breakpoints[middle])) <= weight.size:
            low = middle
        else:
            high = middle
    below, above = total(float(breakpoints[low])), total(float(breakpoints[high]))
    share = (weight.size - below) / (above - below)
    return np.clip((breakpoints[low] + share * (breakpoints[high] - breakpoints[low])) * weight, floor, cap)
