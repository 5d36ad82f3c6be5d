"""The divergence on K+2 outcomes: golden numbers, a full-vocabulary oracle, its properties, and torch beside numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.credit.divergence import (
    divergence_features,
    divergence_of,
    entropy_of,
    observed_logprob_of,
    outcomes,
    server_outcomes,
    top_ids,
)

STUDENT = np.log([[0.5, 0.2, 0.15, 0.1, 0.05]])
TEACHER = np.log([[0.1, 0.6, 0.1, 0.15, 0.05]])
KINDS = ("reverse_kl", "forward_kl", "jsd")
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=80, deadline=None)


def logits(seed: int, tokens: int = 3, size: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student, teacher (peaked, and not far apart) and observed tokens."""
    rng = np.random.default_rng(seed)
    student = rng.normal(0, 3, (tokens, size))
    return student, student + rng.normal(0, 1.5, (tokens, size)), rng.integers(0, size, tokens)


def full_kl(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """The oracle: over the whole vocabulary, in float64, written another way."""
    p = np.exp(student - student.max(-1, keepdims=True))
    q = np.exp(teacher - teacher.max(-1, keepdims=True))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return (p * np.log(p / q)).sum(-1)


def one_row(student: np.ndarray, teacher: np.ndarray, y: int, k: int, kind: str = "reverse_kl") -> tuple[float, ...]:
    return tuple(float(x[0]) for x in divergence_features(student, teacher, np.array([y]), k=k, divergence=kind))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("y", "k", "d", "h"),
    [
        (2, 2, 0.515156, 1.105890),  # support {1, 3, 2}, tails .55 and .15
        (1, 2, 0.460465, 0.937637),  # support {1, 3}, tails .70 and .25
        (1, 5, 0.605270, None),
    ],
)
def test_golden(y: int, k: int, d: float, h: float | None):
    got = one_row(STUDENT, TEACHER, y, k)
    assert got[0] == pytest.approx(d, abs=1e-6)
    assert h is None or got[1] == pytest.approx(h, abs=1e-6)


def test_the_outcomes_in_full():
    got = np.exp(outcomes(STUDENT, top_ids(TEACHER, 2), np.array([2])))
    assert got == pytest.approx(np.array([[0.2, 0.1, 0.15, 0.55]]))
    got = np.exp(outcomes(TEACHER, top_ids(TEACHER, 2), np.array([2])))
    assert got == pytest.approx(np.array([[0.6, 0.15, 0.1, 0.15]]))


def test_no_double_counting_when_the_observed_token_is_in_the_top():
    got = np.exp(outcomes(STUDENT, top_ids(TEACHER, 2), np.array([1])))
    assert got == pytest.approx(np.array([[0.2, 0.1, 0.0, 0.7]]))
    assert got[0, 2] == 0


@pytest.mark.parametrize("k", [5, 6, 100])
def test_no_tail_when_k_covers_the_vocabulary(k: int):
    got = outcomes(STUDENT, top_ids(TEACHER, k), np.array([3]))
    assert got.shape == (1, 7)
    assert got[0, -1] == -math.inf
    assert one_row(STUDENT, TEACHER, 3, k)[0] == pytest.approx(float(full_kl(STUDENT, TEACHER)[0]), abs=1e-12)


def test_the_gap_is_that_of_the_observed_token():
    for k in (2, 5):
        for y in range(5):
            expected = TEACHER[0, y] - STUDENT[0, y]
            assert one_row(STUDENT, TEACHER, y, k)[2] == pytest.approx(expected, abs=1e-12)


def test_ties_at_rank_k_go_to_the_lower_id():
    assert top_ids(np.array([[0.0, 1.0, 1.0, 1.0, 2.0]]), 3).tolist() == [[1, 2, 4]]
    assert top_ids(np.zeros((2, 6)), 2).tolist() == [[0, 1], [0, 1]]
    assert top_ids(np.array([[-np.inf, -np.inf, 1.0, -np.inf]]), 3).tolist() == [[0, 1, 2]]


def test_nan_is_never_among_the_top_and_its_row_alone_is_lost():
    teacher = np.array([[np.nan, 3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
    assert top_ids(teacher, 2).tolist() == [[1, 2], [1, 2]]
    d, h, gap = divergence_features(np.ones((2, 4)), teacher, np.array([1, 1]), k=2)
    for feature in (d, h, gap):
        assert np.isfinite(feature).tolist() == [False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_logit_that_is_not_finite_is_never_a_finite_divergence(bad: float, side: int):
    rows = [np.array([[1.0, 2.0, 3.0, 0.0]]), np.array([[1.0, 2.5, 3.0, 0.5]])]
    rows[side][0, 2] = bad
    assert not np.isfinite(one_row(rows[0], rows[1], 1, 2)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_mass_where_the_teacher_underflows_stays_finite(kind: str):
    student = np.array([[0.0, 0.0, -300.0]], np.float32)
    teacher = np.array([[0.0, -300.0, 0.0]], np.float32)  # exp(-300) is 0 in float32
    got = one_row(student, teacher, 1, 1, kind)
    assert all(map(math.isfinite, got))
    if kind == "reverse_kl":
        assert got[0] == pytest.approx(0.5 * 300, rel=1e-5)


def test_the_tail_is_the_complement_and_not_one_minus_the_kept_mass():
    """exp(-40) is lost beside one in float32 and in float64; the complement's logsumexp keeps it."""
    row = np.full((1, 50), -40.0, np.float32)
    row[0, 7] = 0.0
    tail = outcomes(row, np.array([[7]]), np.array([7]))[0, -1]
    assert tail == pytest.approx(-40 + math.log(49), abs=1e-4)


def test_masked_logits_have_no_mass_and_do_no_harm():
    student = np.array([[0.0, 1.0, -np.inf, -np.inf, 2.0]])
    teacher = np.array([[0.5, 1.0, -np.inf, -np.inf, 1.0]])
    for k in (1, 2, 4, 5):
        assert all(map(math.isfinite, one_row(student, teacher, 4, k)))
    alive = [0, 1, 4]
    expected = one_row(student[:, alive], teacher[:, alive], 2, 3)
    assert one_row(student, teacher, 4, 5) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_contexts_give_exactly_zero(kind: str):
    student, _, y = logits(5, tokens=200)
    d, h, gap = divergence_features(student, student.copy(), y, k=4, divergence=kind)  # type: ignore[arg-type]
    assert not d.any()
    assert not gap.any()
    assert (h > 0).all()


def test_rounding_never_makes_a_divergence_negative():
    student = logits(1, tokens=500)[0].astype(np.float32)
    teacher = student + np.random.default_rng(2).normal(0, 1e-6, student.shape).astype(np.float32)
    d = divergence_features(student, teacher, np.zeros(500, int), k=4)[0]
    assert ((d >= 0) & (d < 1e-5)).all()
    assert d.any()


@quick
@given(seeds, st.integers(1, 14))
def test_between_zero_and_the_full_divergence(seed: int, k: int):
    student, teacher, y = logits(seed)
    d = divergence_features(student, teacher, y, k=k)[0]
    full = full_kl(student, teacher)
    assert (d >= 0).all()
    assert (d <= full + 1e-9).all()
    if k >= 11:  # at most one token outside
        assert d == pytest.approx(full, abs=1e-9)


@quick
@given(seeds)
def test_forward_is_reverse_with_the_roles_exchanged_and_jsd_is_bounded(seed: int):
    student, teacher, y = logits(seed)
    p, q = (outcomes(row, top_ids(teacher, 4), y) for row in (student, teacher))
    assert divergence_of(p, q, "forward_kl").tolist() == divergence_of(q, p, "reverse_kl").tolist()
    jsd = divergence_of(p, q, "jsd")
    assert jsd == pytest.approx(divergence_of(q, p, "jsd"), abs=1e-12)
    assert ((jsd >= 0) & (jsd <= math.log(2) + 1e-12)).all()
    full_p, full_q = (outcomes(row, top_ids(teacher, 12), y) for row in (student, teacher))
    for kind in KINDS:
        assert (divergence_of(p, q, kind) <= divergence_of(full_p, full_q, kind) + 1e-9).all()
    a, b = np.exp(full_p[:, :-2]), np.exp(full_q[:, :-2])
    middle = (a + b) / 2
    expected = 0.5 * (a * np.log(a / middle)).sum(-1) + 0.5 * (b * np.log(b / middle)).sum(-1)
    assert divergence_of(full_p, full_q, "jsd") == pytest.approx(expected, abs=1e-9)


@quick
@given(seeds)
def test_a_larger_support_never_lowers_the_divergence(seed: int):
    student, teacher, y = logits(seed)
    rising = np.array([divergence_features(student, teacher, y, k=k)[0] for k in range(1, 13)])
    assert (np.diff(rising, axis=0) >= -1e-9).all()
    ids = top_ids(teacher, 3)
    inside = ids[:, 0]  # nothing observed beyond the top
    without = divergence_of(outcomes(student, ids, inside), outcomes(teacher, ids, inside))
    with_y = divergence_of(outcomes(student, ids, y), outcomes(teacher, ids, y))
    assert (with_y >= without - 1e-9).all()


@quick
@given(seeds, st.floats(-50, 50), st.floats(-50, 50))
def test_a_constant_on_the_logits_changes_nothing(seed: int, a: float, b: float):
    student, teacher, y = logits(seed)
    here, there = divergence_features(student, teacher, y, k=4), divergence_features(student + a, teacher + b, y, k=4)
    for before, after in zip(here, there, strict=True):
        assert after == pytest.approx(before, abs=1e-9)


@quick
@given(seeds, st.floats(-3000, 3000), st.floats(0.01, 1))
def test_an_offset_costs_float32_no_accuracy(seed: int, offset: float, distance: float):
    rng = np.random.default_rng(seed)
    student = rng.normal(0, 3, (3, 50))
    teacher = student + rng.normal(0, distance, (3, 50))
    p, q, y = (student + offset).astype(np.float32), (teacher + offset).astype(np.float32), rng.integers(0, 50, 3)
    exact = divergence_features(p.astype(np.float64), q.astype(np.float64), y, k=8)
    for feature, expected in zip(divergence_features(p, q, y, k=8), exact, strict=True):
        assert feature.dtype == np.float32
        assert feature == pytest.approx(expected, rel=1e-4, abs=3e-6)


@quick
@given(seeds)
def test_other_names_for_the_tokens_change_nothing(seed: int):
    student, teacher, y = logits(seed)
    order = np.random.default_rng(seed).permutation(student.shape[1])
    renamed = divergence_features(student[:, order], teacher[:, order], np.argsort(order)[y], k=4)
    for before, after in zip(divergence_features(student, teacher, y, k=4), renamed, strict=True):
        assert after == pytest.approx(before, abs=1e-9)


@quick
@given(seeds, st.integers(1, 12))
def test_entropy_lies_between_zero_and_that_of_equal_outcomes(seed: int, k: int):
    student, teacher, y = logits(seed)
    h = divergence_features(student, teacher, y, k=k)[1]
    assert ((h >= 0) & (h <= math.log(k + 2) + 1e-12)).all()


def test_entropy_of_certainty_and_of_equal_outcomes():
    assert entropy_of(np.array([[0.0, -np.inf, -np.inf]])).tolist() == [0.0]
    assert entropy_of(np.log(np.full((1, 4), 0.25))) == pytest.approx([math.log(4)])


@quick
@given(seeds, st.integers(1, 12))
def test_the_top_is_that_of_a_stable_sort(seed: int, k: int):
    teacher = np.round(logits(seed)[1])  # many ties
    expected = np.sort(np.argsort(-teacher, axis=-1, kind="stable")[:, :k], axis=-1)
    assert top_ids(teacher, k).tolist() == expected.tolist()


@quick
@given(seeds, st.integers(1, 10))
def test_a_server_s_log_probabilities_give_the_same_outcomes(seed: int, k: int):
    student, teacher, y = logits(seed)
    ids = top_ids(teacher, k)
    row = np.arange(len(y))
    for side in (student, teacher):
        logp = side - np.log(np.exp(side).sum(-1, keepdims=True))
        got = server_outcomes(logp[row[:, None], ids], ids, y, observed_logprobs=logp[row, y])
        assert np.exp(got) == pytest.approx(np.exp(outcomes(side, ids, y)), abs=2e-7)
        assert observed_logprob_of(got, ids, y) == pytest.approx(logp[row, y], abs=1e-12)


def test_a_server_that_rounds_its_mass_to_one_leaves_a_little_for_the_tail_on_both_sides():
    ids, y = np.array([[3, 8]]), np.array([8])
    top = np.array([[math.log(0.75), math.log(0.25) + 1e-9]], np.float32)  # sums to one, or beyond
    got = server_outcomes(top, ids, y, observed_logprobs=top[:, 1])
    assert got[0, -1] == pytest.approx(math.log(1e-7), abs=1e-3)
    assert divergence_of(got, got).tolist() == [0.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_torch_says_what_numpy_says(kind: str, dtype: str):
    torch = pytest.importorskip("torch")
    student, teacher, y = logits(11, tokens=40, size=60)
    rows = [torch.tensor(row, dtype=getattr(torch, dtype)) for row in (student, teacher)]
    theirs = divergence_features(rows[0], rows[1], torch.tensor(y), k=9, divergence=kind)  # type: ignore[arg-type]
    wide = [row.to(torch.float64).numpy() for row in rows]
    ours = divergence_features(wide[0], wide[1], y, k=9, divergence=kind)  # type: ignore[arg-type]
    close = 1e-12 if dtype == "float64" else 2e-6
    for got, expected in zip(theirs, ours, strict=True):
        assert got.dtype == (torch.float64 if dtype == "float64" else torch.float32)
        assert np.abs(got.numpy() - expected).max() < close
    ties = torch.tensor(np.round(teacher), dtype=getattr(torch, dtype))
    assert top_ids(ties, 9).tolist() == top_ids(np.round(teacher), 9).tolist()


def test_torch_and_numpy_agree_on_empty_slots_and_servers():
    torch = pytest.importorskip("torch")
    got = divergence_features(torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor([1]), k=9)
    assert [float(x[0]) for x in got] == pytest.approx(one_row(STUDENT, TEACHER, 1, 9))
    top, ids, y = np.log([[0.6, 0.3]]), np.array([[1, 4]]), np.array([2])
    ours = server_outcomes(top, ids, y, observed_logprobs=np.log([0.05]))
    theirs = server_outcomes(
        torch.tensor(top), torch.tensor(ids), torch.tensor(y), observed_logprobs=torch.tensor(np.log([0.05]))
    )
    assert theirs.numpy() == pytest.approx(ours)


def test_the_inputs_are_left_as_they_were():
    student, teacher, y = logits(2)
    copies = student.copy(), teacher.copy(), y.copy()
    divergence_features(student, teacher, y, k=4)
    for now, before in zip((student, teacher, y), copies, strict=True):
        assert now.tolist() == before.tolist()
