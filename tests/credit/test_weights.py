"""Weights: bounded and positive whatever the saliency, one where nothing is known, and the two extensions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sgcd.credit.weights import drop_disagreeing_segments, weigh
from sgcd.credit_records import Credit, Segments, Span
from sgcd.errors import RecordError

quick = settings(max_examples=60, deadline=None)
anything = arrays.arrays(np.float64, st.integers(0, 40), elements=st.floats(width=64))
saliencies = arrays.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([0.0, 0.0, 0.5, 0.75, 1.0]))
gammas = st.floats(0, 1e300)
caps = st.floats(1, 1e6, exclude_min=True)
floors = st.floats(1e-3, 1, exclude_max=True)


def test_the_published_rule():
    got = weigh(np.array([0.0, 0.25, 1.0]))
    assert got.dtype == np.float32
    assert got.tolist() == [1.0, 1.25, 2.0]
    assert weigh(np.array([0.0, 0.5, 1.0]), gamma=2.0, cap=2.5).tolist() == [1.0, 2.0, 2.5]


@quick
@given(anything, gammas, caps, st.booleans())
def test_between_one_and_the_cap_for_any_saliency(s: np.ndarray, gamma: float, cap: float, mean_one: bool):
    w = weigh(s, gamma=gamma, cap=cap, mean_one=mean_one)
    assert ((w >= 1) & (w <= np.float32(cap))).all()
    Credit(advantage=1.0, weight=w, cap=cap)


@quick
@given(anything, gammas, caps, floors, st.booleans())
def test_between_floor_and_cap_for_any_saliency(s: np.ndarray, gamma: float, cap: float, floor: float, mean_one: bool):
    w = weigh(s, gamma=gamma, cap=cap, floor=floor, mean_one=mean_one)
    assert ((w >= np.float32(floor)) & (w <= np.float32(cap))).all()
    Credit(advantage=-1.0, weight=w, cap=cap, floor=floor)


@quick
@given(anything, st.integers(0, 2**32 - 1), floors | st.just(1.0), st.booleans())
def test_exactly_one_where_not_creditable(s: np.ndarray, seed: int, floor: float, mean_one: bool):
    free = np.random.default_rng(seed).random(len(s)) < 0.5
    w = weigh(s, free, floor=floor, mean_one=mean_one)
    assert (w[~free] == 1).all()


@quick
@given(anything, caps, floors | st.just(1.0), st.booleans())
def test_gamma_zero_and_saliency_zero_are_exactly_one(s: np.ndarray, cap: float, floor: float, mean_one: bool):
    for w in (
        weigh(s, gamma=0.0, cap=cap, floor=floor, mean_one=mean_one),
        weigh(np.zeros_like(s), cap=cap, floor=floor, mean_one=mean_one),
    ):
        assert w.tobytes() == np.ones(len(s), np.float32).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_saliency_and_poisons_nothing(bad: float):
    s = np.array([bad, 0.5])
    assert weigh(s).tolist() == [1.0, 1.5]
    assert weigh(s, gamma=0.0).tolist() == [1.0, 1.0]


@quick
@given(saliencies, st.floats(-5, 5))
def test_the_sign_is_the_advantage_s_and_the_size_at_most_cap_times_it(s: np.ndarray, advantage: float):
    got = Credit(advantage, weigh(s, cap=1.5), cap=1.5).token_advantage
    a = np.float32(advantage)
    assert (np.sign(got) == np.sign(a)).all()
    assert (np.abs(got) <= np.float32(1.5) * np.abs(a)).all()
    assert Credit(0.0, weigh(s), cap=2.0).token_advantage.tolist() == [0.0] * len(s)


def test_below_one_outside_segments():
    s = np.array([0, 0.5, 1, 0, 0], np.float32)
    free = np.array([1, 1, 1, 0, 1], bool)
    assert weigh(s, free, floor=0.25).tolist() == [0.25, 1.5, 2.0, 1.0, 0.25]
    assert weigh(s, free, gamma=0.5, floor=0.25).tolist() == [0.5, 1.25, 1.5, 1.0, 0.5]


def test_a_rollout_without_segments_is_not_attenuated():
    assert weigh(np.zeros(4), floor=0.2).tolist() == [1.0] * 4
    assert weigh(np.array([0, 0, 0, 1.0]), np.array([1, 1, 1, 0], bool), floor=0.2).tolist() == [1.0] * 4


def test_mean_one_in_full():
    """One token of eight at 2 and seven at .25 have mean .46875: scaled, the one meets the cap and the rest share 6."""
    s = np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    assert weigh(s, floor=0.25, mean_one=True) == pytest.approx(np.array([2.0] + [6 / 7] * 7))
    # seven of eight at 2: scaled down, the eighth meets the floor
    assert weigh(1 - s, floor=0.25, mean_one=True) == pytest.approx(np.array([0.25] + [7.75 / 7] * 7))


@quick
@given(saliencies, floors, caps, st.floats(0.01, 5), st.integers(0, 2**32 - 1))
def test_mean_one_over_the_creditable_tokens(s: np.ndarray, floor: float, cap: float, gamma: float, seed: int):
    free = np.random.default_rng(seed).random(len(s)) < 0.8
    w = weigh(s, free, gamma=gamma, cap=cap, floor=floor, mean_one=True)
    if free.any():
        assert float(w[free].astype(float).mean()) == pytest.approx(1, abs=1e-6)
    order = np.argsort(s[free], kind="stable")
    assert (np.diff(w[free][order]) >= 0).all()  # scaling keeps the order


@quick
@given(anything)
def test_a_floor_of_one_is_the_published_rule(s: np.ndarray):
    assert weigh(s, floor=1.0).tolist() == weigh(s).tolist()
    assert weigh(s, floor=1.0, mean_one=True).tolist() == [1.0] * len(s)


def test_flags_of_another_length_are_refused():
    with pytest.raises(RecordError, match="creditable must have 3 entries"):
        weigh(np.zeros(3), np.ones(2, bool))


def test_a_weight_cannot_carry_a_gradient():
    torch = pytest.importorskip("torch")
    with pytest.raises(RecordError, match="float32 numpy array"):
        Credit(1.0, torch.ones(3, requires_grad=True), cap=2.0)


@pytest.mark.parametrize(("advantage", "kept"), [(1.0, [1]), (-1.0, [0]), (0.0, [0, 1])])
def test_the_gate_keeps_what_the_teacher_moves_the_way_of_the_advantage(advantage: float, kept: list[int]):
    spans = (Span(1, 3, 1.0), Span(4, 6, 0.5))
    segments = Segments(np.array([0, 1, 1, 0, 0.5, 0.5], np.float32), spans, num_valid=6, num_nonfinite=0)
    gap = np.array([9, -0.2, 9, 9, 0.3, -9], np.float32)  # only the first token of a segment counts
    got = drop_disagreeing_segments(segments, advantage, gap)
    assert got.spans == tuple(spans[i] for i in kept)
    expected = np.zeros(6, np.float32)
    for i in kept:
        expected[spans[i].start : spans[i].stop] = spans[i].saliency
    assert got.saliency.dtype == np.float32
    assert got.saliency.tolist() == expected.tolist()
    assert segments.saliency.tolist() == [0, 1, 1, 0, 0.5, 0.5]


def test_the_gate_drops_a_segment_whose_gap_is_unknown():
    segments = Segments(np.ones(2, np.float32), (Span(0, 2, 1.0),), num_valid=2, num_nonfinite=0)
    assert drop_disagreeing_segments(segments, 1.0, np.full(2, np.nan, np.float32)).spans == ()
