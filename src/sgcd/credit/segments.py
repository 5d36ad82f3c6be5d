"""Segments: turns divergence and teacher entropy into saliency, which is constant over spans that start at spikes.

Each rollout's divergence is normalised. A spike at which the teacher is confident opens a span. The span ends when the
teacher's entropy rises, the divergence stays quiet, a stronger spike comes, or the turn ends (paper, section 4.4).
Segmentation is one deterministic pass. Calibration chooses the spike threshold once, on the first batch.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.credit.settings import Scale, SegmentSettings
from sgcd.credit_records import Segments, Span
from sgcd.records import Flags, Rollout, check_length

Doubles = NDArray[np.float64]
DEFAULT_SETTINGS = SegmentSettings()
_SPIKE_THRESHOLDS: dict[Scale, float] = {"published": 3.0, "absolute": 0.3}
_QUIET_THRESHOLDS: dict[Scale, float] = {"published": 1.0, "absolute": 0.02}
_SPIKE_CANDIDATES: dict[Scale, tuple[float, ...]] = {
    "published": (3.0, 4.0, 5.0, 6.0),
    "absolute": (0.3, 0.4, 0.5, 0.6),
}
_MAX_CREDITED_SHARE = 0.15
"""The largest share of policy tokens that a calibrated spike may credit."""


@dataclass(frozen=True, slots=True)
class DivergenceScale:
    """Statistics over all valid tokens of a rollout: the only way in which later tokens change earlier saliency."""

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
    *,
    outside_literals: Flags | None = None,
    undecided: Flags | None = None,
    turns: NDArray[Any] | None = None,
    settings: SegmentSettings = DEFAULT_SETTINGS,
) -> Segments:
    """Saliency and spans of one response.

    Where all valid divergences are equal ("flat"), z = 0 on either scale: no spans, W = 1. So on the absolute scale a
    rollout whose tokens all have the same high divergence gets no credit.
    `mask` is True on policy tokens. `outside_literals` is False on tokens of literals; by default no token is one.
    Where `undecided` is False a token takes part in the statistics and may end a span, but starts none and has no
    saliency; by default all tokens are undecided.
    `turns` has each token's turn number; by default a contiguous run of the mask is a turn.
    """
    size = len(divergence)
    policy_mask = np.asarray(mask, dtype=bool)
    is_outside_literals = (
        np.ones(size, dtype=bool) if outside_literals is None else np.asarray(outside_literals, dtype=bool)
    )
    may_start = np.ones(size, dtype=bool) if undecided is None else np.asarray(undecided, dtype=bool)
    turns = np.zeros(size, dtype=np.int64) if turns is None else turns
    arrays = {"entropy": entropy, "mask": policy_mask, "outside_literals": is_outside_literals, "undecided": may_start}
    for name, array in (arrays | {"turns": turns}).items():
        check_length("segment", name, array, size)
    d, h = np.asarray(divergence, dtype=np.float64), np.asarray(entropy, dtype=np.float64)
    finite = np.isfinite(d) & np.isfinite(h)
    valid = policy_mask & is_outside_literals & finite
    count, nonfinite = int(valid.sum()), int((policy_mask & ~finite).sum())
    if count < settings.min_tokens:
        return Segments(np.zeros(size, np.float32), (), count, nonfinite, "few_tokens")
    valid_divergence = d[valid]
    if valid_divergence.min() == valid_divergence.max():
        return Segments(np.zeros(size, np.float32), (), count, nonfinite, "flat")
    scale = measure_scale(valid_divergence, h[valid], settings)
    d, h = np.where(valid, d, scale.median), np.where(valid, h, np.inf)
    ends = _run_ends(policy_mask, turns)
    spans = find_spans(d, h, valid, may_start=may_start, ends=ends, scale=scale, settings=settings)
    saliency = np.zeros(size, np.float32)
    for span in spans:
        saliency[span.start : span.stop] = span.saliency
    saliency[~(valid & may_start)] = 0
    return Segments(saliency, spans, count, nonfinite)


def spike_threshold(settings: SegmentSettings) -> float:
    """z_hi: from the settings, or the default of their scale."""
    return _SPIKE_THRESHOLDS[settings.scale] if settings.spike is None else settings.spike


def turn_indices(rollout: Rollout) -> NDArray[np.int64]:
    """Each token's turn number, -1 outside turns."""
    indices = np.full(len(rollout.response), -1, dtype=np.int64)
    for number, turn in enumerate(rollout.turns):
        indices[turn.start : turn.stop] = number
    return indices


def turn_means(values: NDArray[Any], tokens: Flags, rollout: Rollout) -> tuple[Doubles, NDArray[np.int64]]:
    """The mean of the values over the given tokens of each turn, 0 where there are none, and the number of tokens.

    A NaN or an infinity takes no part.
    """
    turns = turn_indices(rollout)
    selected = tokens & np.isfinite(values) & (turns >= 0)
    counts = np.bincount(turns[selected], minlength=len(rollout.turns))
    sums = np.bincount(turns[selected], values[selected].astype(np.float64), minlength=len(rollout.turns))
    return sums / np.maximum(counts, 1), counts


def measure_scale(d: Doubles, h: Doubles, settings: SegmentSettings) -> DivergenceScale:
    """Centre and robust spread of the divergence, and the two limits on the teacher's entropy, over the valid tokens.

    spread = max(1.4826 MAD, 1.2533 mean|d - median|, sigma_min). The second term matters when most divergences are 0.
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
    z: Doubles, d: Doubles, h: Doubles, *, valid: Flags, scale: DivergenceScale, settings: SegmentSettings
) -> Flags:
    """True where a span may start: at a spike of enough nats at which the teacher is confident."""
    return valid & (z >= spike_threshold(settings)) & (d >= settings.min_divergence) & (h <= scale.max_entropy)


def find_spans(
    d: Doubles,
    h: Doubles,
    valid: Flags,
    *,
    may_start: Flags,
    ends: NDArray[np.int64],
    scale: DivergenceScale,
    settings: SegmentSettings,
) -> tuple[Span, ...]:
    """All spans, from left to right. The Python loop visits only tokens inside spans."""
    z = normalized_divergence(d, scale, settings)
    starts = spike_mask(z, d, h, valid=valid & may_start, scale=scale, settings=settings)
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
            z[window],
            h[window],
            valid[window],
            starts=starts[window],
            entropy_rise=scale.entropy_rise,
            settings=settings,
        )
        search_from += start
        spans.append(Span(start, start + length, float(np.float32(min(1.0, z[start] / saturation)))))
    return tuple(spans)


def _segment_end(
    z: Doubles, h: Doubles, valid: Flags, *, starts: Flags, entropy_rise: float, settings: SegmentSettings
) -> tuple[int, int]:
    """The length of the span that starts at 0, up to its last creditable token, and where the next search starts."""
    quiet = _QUIET_THRESHOLDS[settings.scale] if settings.quiet is None else settings.quiet
    first_height, num_quiet, last = float(z[0]), 0, 0
    entropy_sum, num_tokens = float(h[0]), 1
    tokens = zip(z.tolist(), h.tolist(), valid.tolist(), starts.tolist(), strict=True)
    for t, (height, entropy, is_valid, is_spike) in enumerate(tokens):
        if t == 0 or not is_valid:  # a literal or a NaN neither ends a span nor gets credit
            continue
        if is_spike and height > first_height:  # a stronger spike opens its own span
            return last + 1, t
        if entropy - entropy_sum / num_tokens > entropy_rise:
            return last + 1, t
        num_quiet = num_quiet + 1 if height <= quiet else 0
        if num_quiet >= settings.quiet_tokens:
            return last + 1, t
        last, entropy_sum, num_tokens = t, entropy_sum + entropy, num_tokens + 1
    return last + 1, len(z)


def _run_ends(policy_mask: Flags, turns: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of equal turn and mask ends. No span crosses an end."""
    change = (policy_mask[1:] != policy_mask[:-1]) | (turns[1:] != turns[:-1])
    return np.append(np.flatnonzero(change) + 1, len(policy_mask))


def _lower_median(values: Doubles) -> float:
    middle = (values.size - 1) // 2
    return float(np.partition(values, middle)[middle])


@dataclass(frozen=True, slots=True)
class Calibration:
    """The chosen spike threshold and the share of policy tokens that it credits.

    >>> Calibration(spike=4.0, share=0.14).to_json()
    {'spike': 4.0, 'share': 0.14}
    """

    spike: float
    share: float

    def to_json(self) -> dict[str, float]:
        """Plain JSON for the checkpoint. `Calibration(**row)` restores it."""
        return asdict(self)

    def apply_to(self, settings: SegmentSettings) -> SegmentSettings:
        """The settings with this spike (z_hi) and saliency one at twice the spike (z_sat = 2 z_hi)."""
        return settings.model_copy(update={"spike": self.spike, "saturation": 2 * self.spike})


def calibrate_spike(credited_share: Callable[[SegmentSettings], float], settings: SegmentSettings) -> Calibration:
    """The smallest candidate spike that credits at most 15 % of the policy tokens, or else the largest candidate.

    `credited_share` segments the first batch under the given settings and returns the credited share.
    """
    calibration = Calibration(0.0, 1.0)
    for spike in _SPIKE_CANDIDATES[settings.scale]:
        calibration = Calibration(spike, credited_share(Calibration(spike, 0.0).apply_to(settings)))
        if calibration.share <= _MAX_CREDITED_SHARE:
            break
    return calibration
