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
from sgcd.records import Flags, Floats, Rollout, same_length

Doubles = NDArray[np.float64]
Reason = Literal["", "no_reference", "few_tokens", "flat", "nonfinite"]
DEFAULTS = SegmentSettings()
SPIKE: dict[Scale, float] = {"published": 3.0, "absolute": 0.3}
QUIET: dict[Scale, float] = {"published": 1.0, "absolute": 0.02}


@dataclass(frozen=True, slots=True)
class Span:
    """A segment [start, stop) of a response: it starts at a spike; `value` is the saliency of its creditable tokens.

    >>> Span(start=10, stop=18, value=1.0).stop
    18
    """

    start: int
    stop: int
    value: float


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
    valid: int
    """How many tokens took part: written by the policy, creditable, finite."""
    nonfinite: int
    """How many tokens that the policy wrote had a NaN or an infinity."""
    reason: Reason = ""
    """Why there could be no segment at all; empty when there could."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a rollout's own tokens say about its scale: all that a later token can do to an earlier one's saliency."""

    centre: float
    spread: float
    confident: float
    """The teacher's entropy at a spike is at most this."""
    rise: float
    """The teacher's entropy may exceed a span's mean by this."""


def segment(
    divergence: NDArray[Any],
    entropy: NDArray[Any],
    mask: Flags,
    creditable: Flags | None = None,
    turns: NDArray[Any] | None = None,
    settings: SegmentSettings = DEFAULTS,
) -> Segments:
    """Saliency and spans of one response (method 6(b)).

    `mask` is True on tokens that the policy wrote, `creditable` False on masked literals (all are creditable when not
    given), and `turns` numbers the turn of each token (contiguous runs of the mask when not given).
    """
    size = len(divergence)
    written = np.asarray(mask, dtype=bool)
    free = np.ones(size, dtype=bool) if creditable is None else np.asarray(creditable, dtype=bool)
    turns = np.zeros(size, dtype=np.int64) if turns is None else turns
    for name, array in (("entropy", entropy), ("mask", written), ("creditable", free), ("turns", turns)):
        same_length("segment", name, array, size)
    d, h = np.asarray(divergence, dtype=np.float64), np.asarray(entropy, dtype=np.float64)
    finite = np.isfinite(d) & np.isfinite(h)
    valid = written & free & finite
    count, nonfinite = int(valid.sum()), int((written & ~finite).sum())
    if count < settings.tokens:
        return Segments(np.zeros(size, np.float32), (), count, nonfinite, "few_tokens")
    used = d[valid]
    if used.min() == used.max():
        return Segments(np.zeros(size, np.float32), (), count, nonfinite, "flat")
    facts = statistics(used, h[valid], settings)
    d, h = np.where(valid, d, facts.centre), np.where(valid, h, np.inf)
    spans = find_spans(d, h, valid, _run_ends(written, turns), facts, settings)
    saliency = np.zeros(size, np.float32)
    for span in spans:
        saliency[span.start : span.stop] = span.value
    saliency[~valid] = 0
    return Segments(saliency, spans, count, nonfinite)


def spike_of(settings: SegmentSettings) -> float:
    """z_hi: what was set, or what the scale says."""
    return SPIKE[settings.scale] if settings.spike is None else settings.spike


def turn_numbers(rollout: Rollout) -> NDArray[np.int64]:
    """The number of each token's turn, -1 outside turns."""
    numbers = np.full(len(rollout.response), -1, dtype=np.int64)
    for number, turn in enumerate(rollout.turns):
        numbers[turn.start : turn.stop] = number
    return numbers


def statistics(d: Doubles, h: Doubles, settings: SegmentSettings) -> Statistics:
    """Centre and robust spread of the divergence, and the two limits on the teacher's entropy, over the valid tokens.

    spread = max(1.4826 MAD, 1.2533 mean|d - median|, sigma_min): the second is for divergences that are mostly zero.
    """
    centre = _lower_median(d)
    away = np.abs(d - centre)
    spread = max(1.4826 * _lower_median(away), 1.2533 * float(away.mean()), settings.spread)
    place = max(math.ceil(settings.confident * h.size) - 1, 0)
    confident = float(np.partition(h, place)[place])
    rise = max(settings.rise, 1.4826 * _lower_median(np.abs(h - _lower_median(h))))
    return Statistics(centre, spread, confident, rise)


def heights(d: Doubles, facts: Statistics, settings: SegmentSettings) -> Doubles:
    """z_t = (d_t - median) / spread on the published scale, d_t itself on the absolute one."""
    return d if settings.scale == "absolute" else (d - facts.centre) / facts.spread


def anchors(z: Doubles, d: Doubles, h: Doubles, valid: Flags, facts: Statistics, settings: SegmentSettings) -> Flags:
    """Where a span may start: a spike, of enough nats, at which the teacher is confident."""
    return valid & (z >= spike_of(settings)) & (d >= settings.least) & (h <= facts.confident)


def find_spans(
    d: Doubles, h: Doubles, valid: Flags, ends: NDArray[np.int64], facts: Statistics, settings: SegmentSettings
) -> tuple[Span, ...]:
    """All spans, from left to right. Only tokens inside spans are visited one by one."""
    z = heights(d, facts, settings)
    starts = anchors(z, d, h, valid, facts, settings)
    at = np.flatnonzero(starts)
    if not at.size:
        return ()
    full = 2 * spike_of(settings) if settings.full is None else settings.full
    limits = np.minimum(ends[np.searchsorted(ends, at, side="right")], at + settings.longest)
    spans: list[Span] = []
    reached = 0
    for start, limit in zip(at.tolist(), limits.tolist(), strict=True):
        if start < reached:
            continue
        here = slice(start, limit)
        length, reached = _extent(z[here], h[here], valid[here], starts[here], facts.rise, settings)
        reached += start
        spans.append(Span(start, start + length, float(np.float32(min(1.0, z[start] / full)))))
    return tuple(spans)


def _extent(
    z: Doubles, h: Doubles, valid: Flags, starts: Flags, rise: float, settings: SegmentSettings
) -> tuple[int, int]:
    """How many tokens the span that starts at 0 covers up to its last creditable one, and where the search goes on."""
    quiet = QUIET[settings.scale] if settings.quiet is None else settings.quiet
    first, low, last = float(z[0]), 0, 0
    total, seen = float(h[0]), 1
    tokens = zip(z.tolist(), h.tolist(), valid.tolist(), starts.tolist(), strict=True)
    for t, (height, unsure, counts, start) in enumerate(tokens):
        if t == 0 or not counts:  # a masked literal or a NaN neither ends a span nor has credit
            continue
        if start and height > first:  # a stronger spike opens its own
            return last + 1, t
        if unsure - total / seen > rise:
            return last + 1, t
        low = low + 1 if height <= quiet else 0
        if low >= settings.reset:
            return last + 1, t
        last, total, seen = t, total + unsure, seen + 1
    return last + 1, len(z)


def _run_ends(written: Flags, turns: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of equal turn and mask ends: no span crosses one."""
    change = (written[1:] != written[:-1]) | (turns[1:] != turns[:-1])
    return np.append(np.flatnonzero(change) + 1, len(written))


def _lower_median(values: Doubles) -> float:
    middle = (values.size - 1) // 2
    return float(np.partition(values, middle)[middle])
