"""The segmenter on random rollouts: the rule transcribed word by word as an oracle, and its properties."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.credit.segments import (
    DEFAULT_SETTINGS,
    Segments,
    find_spans,
    measure_scale,
    normalized_divergence,
    segment,
    spike_mask,
)
from sgcd.credit.settings import SegmentSettings

ABSOLUTE = SegmentSettings(scale="absolute")
quick = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)


class Tokens(NamedTuple):
    d: np.ndarray
    h: np.ndarray
    mask: np.ndarray
    free: np.ndarray
    undecided: np.ndarray
    turns: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        return self.mask & self.free & np.isfinite(self.d) & np.isfinite(self.h)

    def segments(self, options: SegmentSettings = DEFAULT_SETTINGS) -> Segments:
        masks = {"outside_literals": self.free, "undecided": self.undecided}
        return segment(self.d, self.h, self.mask, **masks, turns=self.turns, settings=options)


@st.composite
def drawings(draw: st.DrawFn) -> Tokens:
    """Rollouts of every temper: calm, spiky, dense with ties, masked, torn by NaN, of many turns."""
    rng = np.random.default_rng(draw(seeds))
    size = draw(st.integers(0, 150))
    d = np.exp(rng.normal(draw(st.sampled_from([-4, -2, 0])), draw(st.sampled_from([0.3, 1.8])), size))
    h = np.abs(rng.normal(1, draw(st.sampled_from([0.1, 0.6])), size))
    if draw(st.booleans()):
        d, h = np.round(d, 1), np.round(h, 1)  # ties
    if draw(st.booleans()):
        d[rng.random(size) < 0.8] = 0  # zero-inflated, as divergences are
    d[rng.random(size) < draw(st.sampled_from([0, 0.05]))] = np.nan
    h[rng.random(size) < draw(st.sampled_from([0, 0.05]))] = np.inf
    return Tokens(
        d=d.astype(np.float32),
        h=h.astype(np.float32),
        mask=rng.random(size) < draw(st.sampled_from([0.5, 0.95, 1])),
        free=rng.random(size) < draw(st.sampled_from([0.9, 1])),
        undecided=rng.random(size) < draw(st.sampled_from([0.3, 0.9, 1])),
        turns=np.cumsum(rng.random(size) < draw(st.sampled_from([0, 0.05, 0.3]))),
    )


def word_by_word(x: Tokens, o: SegmentSettings) -> list[float]:
    """Method 6(b), as it is written: the oracle."""
    size = len(x.d)
    d, h = [float(v) for v in x.d], [float(v) for v in x.h]
    valid = [t for t in range(size) if x.mask[t] and x.free[t] and math.isfinite(d[t]) and math.isfinite(h[t])]
    s = [0.0] * size
    if len(valid) < o.min_tokens or len({d[t] for t in valid}) == 1:
        return s
    lower = lambda values: sorted(values)[(len(values) - 1) // 2]  # noqa: E731
    med = lower([d[t] for t in valid])
    away = [abs(d[t] - med) for t in valid]
    sigma = max(1.4826 * lower(away), 1.2533 * float(np.mean(away)), o.spread)
    z = {t: (d[t] - med) / sigma for t in valid}
    z_hi, z_sat, z_lo = 3.0, 6.0, 1.0
    if o.scale == "absolute":
        z, z_hi, z_sat, z_lo = {t: d[t] for t in valid}, 0.3, 0.6, 0.02
    hcap = float(np.quantile([h[t] for t in valid], o.entropy_quantile, method="inverted_cdf"))
    hmed = lower([h[t] for t in valid])
    hstep = max(o.entropy_rise, 1.4826 * lower([abs(h[t] - hmed) for t in valid]))

    def anchor(t: int) -> bool:
        return t in z and x.undecided[t] and z[t] >= z_hi and d[t] >= o.min_divergence and h[t] <= hcap

    t = 0
    while t < size:
        if not anchor(t):
            t += 1
            continue
        a = t
        v = min(1.0, max(0.0, z[a] / z_sat))
        s[a] = v
        inside = [h[a]]
        low = 0
        t += 1
        while t < size and x.mask[t] and x.turns[t] == x.turns[a] and t - a < o.max_tokens:
            if t not in z:
                t += 1
                continue
            if anchor(t) and z[t] > z[a]:
                break
            if h[t] - sum(inside) / len(inside) > hstep:
                break
            low = low + 1 if z[t] <= z_lo else 0
            if low >= o.quiet_tokens:
                break
            s[t] = v if x.undecided[t] else 0.0
            inside.append(h[t])
            t += 1
    return s


options = st.builds(
    SegmentSettings,
    scale=st.sampled_from(["published", "absolute"]),
    quiet_tokens=st.sampled_from([1, 3, 8]),
    max_tokens=st.sampled_from([1, 5, 64]),
    entropy_quantile=st.sampled_from([0.5, 0.9, 1.0]),
    entropy_rise=st.sampled_from([0.0, 0.3]),
    min_tokens=st.sampled_from([1, 16]),
)


@settings(max_examples=150, deadline=None)
@given(drawings(), options)
def test_the_rule_word_by_word(x: Tokens, o: SegmentSettings):
    expected = np.array(word_by_word(x, o), np.float32)
    assert x.segments(o).saliency.tolist() == expected.tolist()


@quick
@given(drawings(), options)
def test_spans_are_disjoint_short_and_inside_one_turn(x: Tokens, o: SegmentSettings):
    got = x.segments(o)
    assert x.segments(o).saliency.tobytes() == got.saliency.tobytes()
    assert ((got.saliency >= 0) & (got.saliency <= 1)).all()
    covered = np.zeros(len(x.d), int)
    for span in got.spans:
        here = slice(span.start, span.stop)
        covered[here] += 1
        assert 1 <= span.stop - span.start <= o.max_tokens
        assert len(set(x.turns[here])) == 1
        assert x.mask[here].all()
        assert set(got.saliency[here]) <= {np.float32(span.saliency), np.float32(0)}
        assert got.saliency[span.start] == np.float32(span.saliency) > 0
        assert (got.saliency[here] > 0).tolist() == (x.valid & x.undecided)[here].tolist()
        assert x.valid[span.stop - 1]
    assert covered.max(initial=0) <= 1
    assert not got.saliency[covered == 0].any()
    assert not got.saliency[~(x.valid & x.undecided)].any()


@quick
@given(drawings())
def test_no_credit_without_a_spike(x: Tokens):
    finite = x.d[x.valid].astype(float)
    if finite.size:
        z = normalized_divergence(finite, measure_scale(finite, finite, DEFAULT_SETTINGS), DEFAULT_SETTINGS)
        above = np.nextafter(max(z.max(), 0.0), np.inf)
        assert not x.segments(SegmentSettings(spike=float(above), min_tokens=1)).spans
    calm = x._replace(d=np.minimum(x.d, np.float32(0.099)))  # a NaN stays one
    assert not calm.segments().spans
    assert not calm.segments(ABSOLUTE).spans


@quick
@given(drawings(), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_another_unit_of_divergence_changes_nothing(x: Tokens, factor: float):
    """Powers of two, so that no rounding stands between the two sides."""
    before = x.segments()
    scaled = x._replace(d=x.d * np.float32(factor))
    after = scaled.segments(SegmentSettings(min_divergence=0.1 * factor, spread=0.02 * factor))
    assert after.saliency.tolist() == before.saliency.tolist()


@quick
@given(drawings(), st.floats(0, 3))
def test_a_constant_on_all_divergences_leaves_the_heights(x: Tokens, constant: float):
    d = x.d[np.isfinite(x.d)].astype(float)
    h = np.zeros_like(d)
    if d.size:
        before = normalized_divergence(d, measure_scale(d, h, DEFAULT_SETTINGS), DEFAULT_SETTINGS)
        after = normalized_divergence(d + constant, measure_scale(d + constant, h, DEFAULT_SETTINGS), DEFAULT_SETTINGS)
        assert after == pytest.approx(before, abs=1e-8, rel=1e-8)


@quick
@given(drawings(), options, st.floats(0, 1), seeds)
def test_the_past_does_not_depend_on_the_future(x: Tokens, o: SegmentSettings, share: float, seed: int):
    """With the rollout's statistics held fixed, saliency up to t is that of the tokens up to t."""
    valid = x.valid
    if valid.sum() < 2:
        return
    d, h = np.where(valid, x.d, 0).astype(float), np.where(valid, x.h, np.inf).astype(float)
    facts = measure_scale(d[valid], h[valid], o)
    ends = np.arange(20, len(d) + 20, 20)
    cut = int(share * len(d))
    rng = np.random.default_rng(seed)
    other_d, other_h = d.copy(), h.copy()
    other_d[cut:], other_h[cut:] = rng.exponential(1, len(d) - cut), rng.exponential(1, len(d) - cut)

    def saliency(d: np.ndarray, h: np.ndarray) -> list[float]:
        s = np.zeros(len(d))
        for span in find_spans(d, h, valid, may_start=x.undecided, ends=ends, scale=facts, settings=o):
            s[span.start : span.stop] = span.saliency
        return np.where(valid, s, 0)[:cut].tolist()

    assert saliency(d, h) == saliency(other_d, other_h)


@quick
@given(drawings(), st.sampled_from(["published", "absolute"]))
def test_a_higher_threshold_never_has_more_anchors(x: Tokens, scale: str):
    valid = x.valid
    if not valid.any():
        return
    d, h = np.where(valid, x.d, 0).astype(float), np.where(valid, x.h, np.inf).astype(float)
    facts = measure_scale(d[valid], h[valid], DEFAULT_SETTINGS)
    found = []
    for spike in (0.1, 0.3, 1.0, 3.0, 6.0):
        o = SegmentSettings(scale=scale, spike=spike)  # type: ignore[arg-type]
        found.append(spike_mask(normalized_divergence(d, facts, o), d, h, valid=valid, scale=facts, settings=o))
    for lower, higher in pairwise(found):
        assert not (higher & ~lower).any()


@quick
@given(drawings(), options, st.integers(0, 9), st.integers(0, 9))
def test_padding_on_either_side_changes_nothing(x: Tokens, o: SegmentSettings, left: int, right: int):
    """Nor does a longer prompt, which only moves where the response starts."""
    around, inside = (left, right), slice(left, left + len(x.d))
    outside = (np.nan, np.inf, False, True, True, -1)
    y = Tokens(*(np.pad(each, around, constant_values=value) for each, value in zip(x, outside, strict=True)))
    assert y.segments(o).saliency[inside].tolist() == x.segments(o).saliency.tolist()
    assert y.segments(o).num_nonfinite == x.segments(o).num_nonfinite
    assert not np.delete(y.segments(o).saliency, np.r_[inside]).any()
