"""Where the credit goes: divergence and teacher entropy become saliency, constant over spans that start at spikes.

Within each rollout the divergence is normalised, a confident spike opens a span, and the span ends where the teacher's
entropy rises, the divergence stays quiet, a stronger spike stands, or the turn is over (paper, section 4.4). One pass,
no randomness: equal inputs give equal spans.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.settings import Scale, SegmentSettings
from sgcd.records import Flags, Floats, Rollout, check_length

Doubles = NDArray[np.float64]
NoSegmentReason = Literal["", "no_reference", "few_tokens", "flat", "nonfinite"]
DEFAULT_SETTINGS = SegmentSettings()
_SPIKE_THRESHOLDS: dict[Scale, float] = {"published": 3.0, "absolute": 0.3}
_QUIET_THRESHOLDS: dict[Scale, float] = {"published": 1.0, "absolute": 0.02}


@dataclass(frozen=True, slots=True)
class Span:
    """A segment [start, stop) of a response: it starts at a spike; `value` is the saliency of its creditable tokens.

    >>> Span(start=10, stop=18, value=1.0).stop
    18
    """

    start: int
    stop: int
    saliency: float


@dataclass(frozen=True, slots=True)
class Segments:
    """What the segmenter says of one rollout.

    >>> import numpy as np
    >>> Segments(saliency=np.array([0, 1, 1], np.float32), spans=(Span(1, 3, 1.0),), valid=3, nonfinite=0).reason
    ''
    """

    saliency: Floats
    """s in [0, 1] for each token of the response."""
    spans: tuple[Span, ...]
    num_valid: int
    """How many tokens took part: written by the policy, creditable, finite."""
    num_nonfinite: int
    """How many tokens that the policy wrote had a NaN or an infinity."""
    reason: NoSegmentReason = ""
    """Why there could be no segment at all; empty when there could."""


@dataclass(frozen=True, slots=True)
class DivergenceScale:
    """What a rollout's own tokens say about its scale: all that a later token can do to an earlier one's saliency."""

    median: float
    spread: float
    max_entropy: float
    """The teacher's entropy at a spike is at most this."""
    entropy_rise: float
    """The teacher's entropy may exceed a span's mean by this."""


def segment(
    divergence: NDArray[Any],
    entropy: NDArray[Any],
    mask: Flags,
    creditable: Flags | None = None,
    turns: NDArray[Any] | None = None,
    settings: SegmentSettings = DEFAULT_SETTINGS,
) -> Segments:
    """Saliency and spans of one response (method 6(b)).

    `mask` is True on tokens that the policy wrote, `creditable` False on masked literals (all are creditable when not
    given), and `turns` numbers the turn of each token (contiguous runs of the mask when not given).
    """
    size = len(divergence)
    policy_mask = np.asarray(mask, dtype=bool)
    is_creditable = np.ones(size, dtype=bool) if creditable is None else np.asarray(creditable, dtype=bool)
    turns = np.zeros(size, dtype=np.int64) if turns is None else turns
    for name, array in (("entropy", entropy), ("mask", policy_mask), ("creditable", is_creditable), ("turns", turns)):
        check_length("segment", name, array, size)
    d, h = np.asarray(divergence, dtype=np.float64), np.asarray(entropy, dtype=np.float64)
    finite = np.isfinite(d) & np.isfinite(h)
    valid = policy_mask & is_creditable & finite
    count, nonfinite = int(valid.sum()), int((policy_mask & ~finite).sum())
    if count < settings.min_tokens:
        return Segments(np.zeros(size, np.float32), (), count, nonfinite, "few_tokens")
    valid_divergence = d[valid]
    if valid_divergence.min() == valid_divergence.max():
        return Segments(np.zeros(size, np.float32), (), count, nonfinite, "flat")
    scale = measure_scale(valid_divergence, h[valid], settings)
    d, h = np.where(valid, d, scale.median), np.where(valid, h, np.inf)
    spans = find_spans(d, h, valid, _run_ends(policy_mask, turns), scale, settings)
    saliency = np.zeros(size, np.float32)
    for span in spans:
        saliency[span.start : span.stop] = span.saliency
    saliency[~valid] = 0
    return Segments(saliency, spans, count, nonfinite)


def spike_threshold(settings: SegmentSettings) -> float:
    """z_hi: what was set, or what the scale says."""
    return _SPIKE_THRESHOLDS[settings.scale] if settings.spike is None else settings.spike


def turn_indices(rollout: Rollout) -> NDArray[np.int64]:
    """The number of each token's turn, -1 outside turns."""
    indices = np.full(len(rollout.response), -1, dtype=np.int64)
    for number, turn in enumerate(rollout.turns):
        indices[turn.start : turn.stop] = number
    return indices


def measure_scale(d: Doubles, h: Doubles, settings: SegmentSettings) -> DivergenceScale:
    """Centre and robust spread of the divergence, and the two limits on the teacher's entropy, over the valid tokens.

    spread = max(1.4826 MAD, 1.2533 mean|d - median|, sigma_min): the second is for divergences that are mostly zero.
    """
    median = _lower_median(d)
    deviations = np.abs(d - median)
    spread = max(1.4826 * _lower_median(deviations), 1.2533 * float(deviations.mean()), settings.spread)
    rank = max(math.ceil(settings.entropy_quantile * h.size) - 1, 0)
    max_entropy = float(np.partition(h, rank)[rank])
    entropy_rise = max(settings.entropy_rise, 1.4826 * _lower_median(np.abs(h - _lower_median(h))))
    return DivergenceScale(median, spread, max_entropy, entropy_rise)


def normalized_divergence(d: Doubles, scale: DivergenceScale, settings: SegmentSettings) -> Doubles:
    """z_t = (d_t - median) / spread on the published scale, d_t itself on the absolute one."""
    return d if settings.scale == "absolute" else (d - scale.median) / scale.spread


def spike_mask(
    z: Doubles, d: Doubles, h: Doubles, valid: Flags, scale: DivergenceScale, settings: SegmentSettings
) -> Flags:
    """Where a span may start: a spike, of enough nats, at which the teacher is confident."""
    return valid & (z >= spike_threshold(settings)) & (d >= settings.min_divergence) & (h <= scale.max_entropy)


def find_spans(
    d: Doubles, h: Doubles, valid: Flags, ends: NDArray[np.int64], scale: DivergenceScale, settings: SegmentSettings
) -> tuple[Span, ...]:
    """All spans, from left to right. Only tokens inside spans are visited one by one."""
    z = normalized_divergence(d, scale, settings)
    starts = spike_mask(z, d, h, valid, scale, settings)
    positions = np.flatnonzero(starts)
    if not positions.size:
        return ()
    saturation = 2 * spike_threshold(settings) if settings.saturation is None else settings.saturation
    limits = np.minimum(ends[np.searchsorted(ends, positions, side="right")], positions + settings.max_tokens)
    spans: list[Span] = []
    search_from = 0
    for start, limit in zip(positions.tolist(), limits.tolist(), strict=True):
        if start < search_from:
            continue
        window = slice(start, limit)
        length, search_from = _segment_end(
            z[window], h[window], valid[window], starts[window], scale.entropy_rise, settings
        )
        search_from += start
        spans.append(Span(start, start + length, float(np.float32(min(1.0, z[start] / saturation)))))
    return tuple(spans)


def _segment_end(
    z: Doubles, h: Doubles, valid: Flags, starts: Flags, entropy_rise: float, settings: SegmentSettings
) -> tuple[int, int]:
    """How many tokens the span that starts at 0 covers up to its last creditable one, and where the search goes on."""
    quiet = _QUIET_THRESHOLDS[settings.scale] if settings.quiet is None else settings.quiet
    first_height, num_quiet, last = float(z[0]), 0, 0
    entropy_sum, num_tokens = float(h[0]), 1
    tokens = zip(z.tolist(), h.tolist(), valid.tolist(), starts.tolist(), strict=True)
    for t, (height, entropy, is_valid, is_spike) in enumerate(tokens):
        if t == 0 or not is_valid:  # a masked literal or a NaN neither ends a span nor has credit
            continue
        if is_spike and height > first_height:  # a stronger spike opens its own
            return last + 1, t
        if entropy - entropy_sum / num_tokens > entropy_rise:
            return last + 1, t
        num_quiet = num_quiet + 1 if height <= quiet else 0
        if num_quiet >= settings.quiet_tokens:
            return last + 1, t
        last, entropy_sum, num_tokens = t, entropy_sum + entropy, num_tokens + 1
    return last + 1, len(z)


def _run_ends(policy_mask: Flags, turns: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of equal turn and mask ends: no span crosses one."""
    change = (policy_mask[1:] != policy_mask[:-1]) | (turns[1:] != turns[:-1])
    return np.append(np.flatnonzero(change) + 1, len(policy_mask))


def _lower_median(values: Doubles) -> float:
    middle = (values.size - 1) // 2
    return float(np.partition(values, middle)[middle])
