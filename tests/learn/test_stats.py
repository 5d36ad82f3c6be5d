"""A few numbers a row, straight from hidden states: held against float64 in full, within a budget of memory."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.random_heads import HEADS, drawn, full, in_full, observed_of, outcomes, outcomes_of_top, rest_of
from sgcd.credit.divergence import divergence_of, top_ids
from sgcd.errors import RecipeError
from sgcd.learn.scoring.logits import cpu_block as block
from sgcd.learn.scoring.logits.chunks import chunk_sizes
from sgcd.learn.scoring.logits.cpu_block import largest_ids
from sgcd.learn.scoring.logits.stats import gather_logprobs, stats_at, topk_stats


@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("heat", [1.0, 0.7])
def test_statistics_are_those_of_the_whole_row(how: dict[str, Any], heat: float) -> None:
    hidden, head = drawn(1500, 9, **how)
    observed = observed_of(1500, 9)
    logp = full(hidden, head, heat)
    top = topk_stats(hidden, head, observed, 5, heat)
    assert torch.equal(top.ids, logp.topk(5).indices.sort(-1).values)
    assert torch.allclose(top.logprobs, logp.gather(1, top.ids), atol=1e-12)
    assert torch.allclose(top.observed_logprob, logp.gather(1, observed[:, None])[:, 0], atol=1e-12)
    assert torch.allclose(top.entropy, -(logp.exp() * logp).sum(-1), atol=1e-12)
    assert torch.allclose(top.tail_logprob, rest_of(logp, top.ids, observed), atol=1e-11)
    there = gather_logprobs(hidden, head, top.ids, top.logsumexp, heat)
    assert torch.allclose(there, top.logprobs, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 1200), st.booleans())
def test_the_largest_are_found_in_two_stages_whatever_ties_there_are(seed: int, k: int, size: int, ties: bool) -> None:
    z = torch.randn(3, size, generator=torch.Generator().manual_seed(seed))
    z = (z * 2).round() if ties else z
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "GROUP", 4)
        assert torch.equal(largest_ids(z, min(k, size)), top_ids(z, min(k, size)))


def test_at_the_same_ids_both_sides_say_the_same_to_the_last_bit() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        hidden, head = drawn(6000, 11, dtype=dtype)
        observed = observed_of(6000, 11)
        top = topk_stats(hidden, head, observed, 7, 0.7)
        other = topk_stats(hidden.roll(1, 0), head, observed, 9, 0.7)
        said = stats_at(hidden, head, observed, [other.ids, top.ids], 0.7)
        assert torch.equal(said.logprobs_at[1][0], top.logprobs)
        assert torch.equal(said.logprobs_at[1][1], top.tail_logprob)
        assert all(
            torch.equal(getattr(said, name), getattr(top, name))
            for name in ("observed_logprob", "entropy", "logsumexp")
        )
        alone = stats_at(hidden, head, observed, [], 0.7)
        assert torch.equal(alone.observed_logprob, top.observed_logprob)


@pytest.mark.parametrize(("dtype", "tolerance", "same"), [(torch.float32, 1e-5, 0.99), (torch.bfloat16, 2e-3, 0.99)])
def test_divergences_are_those_of_float64(dtype: torch.dtype, tolerance: float, same: float) -> None:
    teacher, head = drawn(20_000, 64, seed=1, dtype=dtype)
    student = (teacher.double() + 0.3 * torch.randn(teacher.shape, dtype=torch.float64)).to(dtype)
    observed = observed_of(20_000, 64)
    top = topk_stats(teacher, head, observed, 20)
    [(logp, rest)] = (said := stats_at(student, head, observed, [top.ids])).logprobs_at
    d = divergence_of(
        outcomes(logp, said.observed_logprob, rest, top, observed), outcomes_of_top(top, observed)
    ).double()
    q, p = full(teacher, head, 1.0), full(student, head, 1.0)
    ids = q.topk(20).indices.sort(-1).values
    expected = divergence_of(in_full(p, ids, observed), in_full(q, ids, observed))
    agree = (ids == top.ids).all(-1)
    assert agree.double().mean() >= same
    assert (d - expected)[agree].abs().max() <= tolerance
    whole = (p.exp() * (p - q)).sum(-1)
    assert (d >= 0).all() and (d <= whole + tolerance).all()


def test_more_ids_never_lower_the_divergence() -> None:
    teacher, head = drawn(3000, 20)
    student, observed = teacher.roll(1, 0), observed_of(3000, 20)
    last = torch.zeros(20, dtype=torch.float64)
    for k in (1, 2, 5, 20, 100, 2999, 3000, 4000):
        top = topk_stats(teacher, head, observed, k)
        said = stats_at(student, head, observed, [top.ids])
        d = divergence_of(
            outcomes(said.logprobs_at[0][0], said.observed_logprob, said.logprobs_at[0][1], top, observed),
            outcomes_of_top(top, observed),
        )
        assert (d >= last - 1e-12).all()
        last = d
    p, q = full(student, head, 1.0), full(teacher, head, 1.0)
    assert torch.allclose(last, (p.exp() * (p - q)).sum(-1), atol=1e-10)


@pytest.mark.parametrize("room", [3 * 2000 * 8, 200_000, 10**9])
def test_a_budget_cuts_and_changes_nothing(room: int) -> None:
    hidden, head = drawn(2000, 50)
    observed = observed_of(2000, 50)
    product, block, _ = chunk_sizes(head, hidden, room)
    assert (product + 2 * block) * 2000 * 8 <= room
    found, whole = (topk_stats(hidden, head, observed, 6, 1.0, size) for size in (room, 2**31))
    assert torch.equal(found.ids, whole.ids)
    assert torch.allclose(found.logprobs, whole.logprobs, atol=1e-12)


def test_a_budget_too_small_for_one_row_is_refused() -> None:
    hidden, head = drawn(2000, 2)
    with pytest.raises(RecipeError, match=r"scoring.logits_bytes: 47,999 do not hold one row .* needs at least 48,000"):
        topk_stats(hidden, head, observed_of(2000, 2), 3, 1.0, 47_999)


def test_nothing_may_have_been_written() -> None:
    hidden, head = drawn(2000, 0)
    nothing = torch.zeros(0, dtype=torch.long)
    top = topk_stats(hidden, head, nothing, 3)
    assert top.ids.shape == top.logprobs.shape == (0, 3)
    assert stats_at(hidden, head, nothing, [top.ids]).observed_logprob.shape == (0,)
