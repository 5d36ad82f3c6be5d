"""The segmenter on drawn tokens: golden vectors in full, and each edge that a rollout can have."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from sgcd.credit.segments import DEFAULT_SETTINGS, segment
from sgcd.credit.settings import SegmentSettings
from sgcd.credit.weights import weigh
from sgcd.credit_records import Segments
from sgcd.errors import RecordError

ABSOLUTE = SegmentSettings(scale="absolute")


class Drawn:
    """Forty tokens of one turn, all written and creditable, without divergence or entropy unless stated."""

    def __init__(self, size: int = 40) -> None:
        self.d, self.h = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self.mask, self.free = np.ones(size, bool), np.ones(size, bool)
        self.turns = np.zeros(size, np.int64)

    def segments(self, options: SegmentSettings = DEFAULT_SETTINGS) -> Segments:
        return segment(self.d, self.h, self.mask, outside_literals=self.free, turns=self.turns, settings=options)


def at(*runs: tuple[int, int]) -> list[int]:
    return [t for first, last in runs for t in range(first, last + 1)]


def plain(x: Drawn) -> None: ...


def entropy_rises(x: Drawn) -> None:
    x.h[14] = 1.0


def literal_inside(x: Drawn) -> None:
    x.free[12] = False


def literal_at_the_spike(x: Drawn) -> None:
    x.free[10] = False


def observation(x: Drawn) -> None:
    x.mask[13:16] = False


def new_turn(x: Drawn) -> None:
    x.turns[13:] = 1


def weaker_spike(x: Drawn) -> None:
    x.d[12] = 0.2


def equal_spike(x: Drawn) -> None:
    x.d[12] = 0.4


def stronger_spike(x: Drawn) -> None:
    x.d[12] = 0.8


def a_nan(x: Drawn) -> None:
    x.d[20] = np.nan


def flat(x: Drawn) -> None:
    x.d[:] = 0.7


@pytest.mark.parametrize(
    ("change", "credited", "spans"),
    [
        (plain, at((10, 17)), [(10, 18)]),
        (entropy_rises, at((10, 13)), [(10, 14)]),
        (literal_inside, at((10, 11), (13, 18)), [(10, 19)]),
        (literal_at_the_spike, [], []),
        (observation, at((10, 12)), [(10, 13)]),
        (new_turn, at((10, 12)), [(10, 13)]),
        (weaker_spike, at((10, 19)), [(10, 20)]),
        (equal_spike, at((10, 19)), [(10, 20)]),
        (stronger_spike, at((10, 19)), [(10, 12), (12, 20)]),
        (a_nan, at((10, 17)), [(10, 18)]),
        (flat, [], []),
    ],
)
def test_golden(change: Callable[[Drawn], None], credited: list[int], spans: list[tuple[int, int]]):
    x = Drawn()
    x.d[10] = 0.4
    change(x)
    got = x.segments()
    expected = np.zeros(40, np.float32)
    expected[credited] = 1
    assert got.saliency.tolist() == expected.tolist()
    assert [(span.start, span.stop) for span in got.spans] == spans


def test_golden_short_spans():
    x = Drawn()
    x.d[10] = 0.4
    got = x.segments(SegmentSettings(max_tokens=4))
    assert np.flatnonzero(got.saliency).tolist() == at((10, 13))


def test_golden_too_few_tokens():
    x = Drawn()
    x.d[10] = 0.4
    x.mask[12:] = False
    got = x.segments()
    assert not got.saliency.any()
    assert (got.spans, got.reason, got.num_valid) == ((), "few_tokens", 12)


def test_one_token_decides_between_too_few_and_enough():
    for size, reason in ((15, "few_tokens"), (16, "")):
        x = Drawn(size)
        x.d[3] = 0.4
        assert x.segments().reason == reason
        assert bool(x.segments().spans) == (reason == "")


@pytest.mark.parametrize("options", [DEFAULT_SETTINGS, ABSOLUTE])
def test_equal_divergences_hold_no_credit(options: SegmentSettings):
    x = Drawn()
    x.d[:] = 0.7
    assert (x.segments(options).spans, x.segments(options).reason) == ((), "flat")
    x.d[:] = 0
    assert (x.segments(options).spans, x.segments(options).reason) == ((), "flat")


def test_an_empty_response():
    got = segment(np.zeros(0), np.zeros(0), np.zeros(0, bool))
    assert (got.saliency.tolist(), got.spans, got.reason) == ([], (), "few_tokens")


def test_a_response_that_the_policy_did_not_write():
    x = Drawn()
    x.d[10] = 0.4
    x.mask[:] = False
    assert (x.segments().num_valid, x.segments().spans) == (0, ())


def test_a_spike_on_the_last_token_of_a_turn_is_a_span_of_one():
    x = Drawn()
    x.d[12] = 0.4
    x.turns[13:] = 1
    assert [(span.start, span.stop) for span in x.segments().spans] == [(12, 13)]
    y = Drawn()
    y.d[39] = 0.4
    assert [(span.start, span.stop) for span in y.segments().spans] == [(39, 40)]


def test_a_spike_just_before_an_observation_ends_there():
    x = Drawn()
    x.d[10] = 0.4
    x.mask[12:20] = False
    assert [(span.start, span.stop) for span in x.segments().spans] == [(10, 12)]


def test_turns_that_touch_are_told_apart_and_runs_of_the_mask_need_no_numbers():
    x = Drawn()
    x.d[10] = 0.4
    x.mask[13:16] = False
    got = segment(x.d, x.h, x.mask)
    assert np.flatnonzero(got.saliency).tolist() == at((10, 12))


def test_a_literal_that_covers_a_turn_leaves_no_credit_there():
    x = Drawn()
    x.d[[10, 25]] = 0.4
    x.turns[20:] = 1
    x.free[20:] = False
    assert np.flatnonzero(x.segments().saliency).tolist() == at((10, 17))
    assert x.segments().num_valid == 20


def test_a_nan_or_an_infinity_in_either_feature_is_counted_and_has_no_credit():
    x = Drawn()
    x.d[10] = 0.4
    x.d[12], x.h[13], x.d[14], x.h[15] = np.nan, np.nan, np.inf, -np.inf
    got = x.segments()
    assert (got.num_nonfinite, got.num_valid) == (4, 36)
    assert np.flatnonzero(got.saliency).tolist() == [10, 11, *at((16, 21))]
    x.mask[[12, 13]] = False  # what nobody wrote need not have been scored
    assert x.segments().num_nonfinite == 2


def test_noise_of_an_empty_reference_is_no_credit():
    x = Drawn()
    x.d[:] = np.abs(np.random.default_rng(0).normal(0, 1e-6, 40))
    assert x.segments().spans == ()
    x.d[10] = 0.09  # many deviations, and still under d_min
    assert x.segments().spans == ()
    x.d[10] = 0.11
    assert len(x.segments().spans) == 1


def test_an_unsure_teacher_opens_no_span():
    x = Drawn()
    x.h[:] = np.linspace(0, 1, 40)
    x.d[35] = 0.4  # the 36th smallest of 40 entropies: the last within the quantile .9
    assert len(x.segments().spans) == 1
    x.d[35], x.d[36] = 0, 0.4
    assert x.segments().spans == ()


def test_saliency_grows_with_the_spike_and_ends_at_one():
    x = Drawn()
    x.d[10], x.d[25] = 0.09 + 0.02, 0.5  # 5.5 deviations of .02, and many
    assert [span.saliency for span in x.segments().spans] == [pytest.approx(5.5 / 6), 1.0]


def test_the_absolute_scale_counts_nats():
    x = Drawn()
    x.d[:] = 0.01
    x.d[10], x.d[25], x.d[35] = 0.29, 0.45, 0.9
    got = x.segments(ABSOLUTE)
    assert [(s.start, s.stop, pytest.approx(s.saliency)) for s in got.spans] == [(25, 33, 0.75), (35, 40, 1.0)]
    assert [span.start for span in x.segments().spans] == [10, 25, 35]
    x.d[26:34] = 0.021  # above quiet: the span goes on
    assert x.segments(ABSOLUTE).spans[0].stop == 35


def test_what_is_set_replaces_what_the_scale_says():
    x = Drawn()
    x.d[10] = 0.45
    one = x.segments(SegmentSettings(scale="absolute", spike=0.4, saturation=0.9, quiet=0.0, quiet_tokens=3))
    assert [(s.start, s.stop, pytest.approx(s.saliency)) for s in one.spans] == [(10, 13, 0.5)]
    assert x.segments(SegmentSettings(scale="absolute", spike=0.5)).spans == ()


def test_arrays_of_different_lengths_are_refused():
    x = Drawn()
    for name in ("h", "mask", "free", "turns"):
        y = Drawn()
        setattr(y, name, getattr(x, name)[:-1])
        with pytest.raises(RecordError, match="must have 40 entries"):
            y.segments()


def test_a_large_step_takes_less_than_a_second_and_a_half():
    """Sixty-four rollouts of sixteen thousand tokens, a sixth of them credited: segments and weights."""
    rng = np.random.default_rng(0)
    size = 16384
    steps = [
        (rng.lognormal(-3, 1.8, size).astype(np.float32), np.abs(rng.normal(1, 0.5, size)).astype(np.float32))
        for _ in range(64)
    ]
    mask, turns = np.ones(size, bool), np.arange(size) // 500
    begun = time.process_time()
    credited = sum(float((weigh(segment(d, h, mask, turns=turns).saliency) > 1).mean()) for d, h in steps)
    assert time.process_time() - begun < 1.5
    assert 0.1 < credited / 64 < 0.25
