"""Statistics from three numbers for each group of columns: those of the whole row, whatever is asked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.logits_cases import (
    DEVICE,
    assert_close,
    build_block,
    check_block,
    group_stats_by_torch,
    logits,
    logits_head,
    scale_logits,
    tail_logprob,
)
from sgcd.learn.scoring.logits import cuda_block as tiles

KINDS = ["plain", "ties", "peaked", "holes", "far"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(1, 4), st.integers(1, 40), st.sampled_from(KINDS), st.integers(0, 2**20))
def test_all_that_is_said_is_true_of_the_whole_row(size: int, rows: int, k: int, kind: str, seed: int) -> None:
    raw, head = logits(size, rows, seed, kind), logits_head(size)
    observed = torch.randint(0, size, (rows,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    if kind == "holes":
        observed[:] = size // 2
    said = build_block(raw, head, observed, 1.0, group_stats_by_torch(raw, head, 1.0).float())
    check_block(said, raw, k, 2e-5 if kind == "far" else 1e-5)


@pytest.mark.parametrize("how", [{"scale": 0.5}, {"cap": 7.0}, {"scale": 1.5, "cap": 9.0}])
def test_scale_cap_and_temperature_are_those_of_the_head(how: dict[str, float]) -> None:
    raw, head = logits(700, 5, 1), logits_head(700, **how)
    observed = torch.arange(5, device=DEVICE) * 130
    check_block(build_block(raw, head, observed, 0.7, group_stats_by_torch(raw, head, 0.7).float()), raw, 9)


def test_few_rows_at_a_time_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, head = logits(1000, 9, 2), logits_head(1000)
    observed = torch.arange(9, device=DEVICE) * 101
    said = build_block(raw, head, observed, 1.0, group_stats_by_torch(raw, head, 1.0).float())
    whole = said.top_k(6)
    monkeypatch.setattr(tiles, "_MAX_GATHERED_LOGITS", 2000)
    assert all(torch.equal(a, b) for a, b in zip(whole, said.top_k(6), strict=True))


def test_what_is_left_is_summed_where_it_stands() -> None:
    """One minus what is taken would be nothing at all, or noise."""
    raw, head = logits(5000, 3, 3), logits_head(5000)
    raw[:, 7] += 60
    observed = torch.full((3,), 7, device=DEVICE)
    said = build_block(raw, head, observed, 1.0, group_stats_by_torch(raw, head, 1.0).float())
    ids, _, rest = said.top_k(4)
    assert_close(rest, tail_logprob(scale_logits(head, raw, 1.0).log_softmax(-1), ids, observed), 1e-4)
    assert (rest < -40).all()


def test_a_row_without_numbers_spoils_no_other() -> None:
    raw, head = logits(600, 4, 4), logits_head(600)
    raw[1, 5], raw[2, 300] = torch.nan, torch.inf
    observed = torch.tensor([3, 3, 3, 3], device=DEVICE)
    said = build_block(raw, head, observed, 1.0, group_stats_by_torch(raw, head, 1.0).float())
    ids, logp, rest = said.top_k(5)
    assert ((ids >= 0) & (ids < 600)).all()
    for told in (logp.sum(-1), rest, said.observed_logprob, said.entropy, said.logsumexp):
        assert told[[1, 2]].isnan().all() or not told[[1, 2]].isfinite().any()
        assert told[[0, 3]].isfinite().all()


def test_nothing_may_have_been_written() -> None:
    raw, head = logits(300, 0, 0), logits_head(300)
    said = build_block(
        raw, head, torch.zeros(0, dtype=torch.long, device=DEVICE), 1.0, torch.empty(3, 0, 3, device=DEVICE)
    )
    ids, logp, rest = said.top_k(4)
    assert ids.shape == logp.shape == (0, 4)
    assert rest.shape == said.entropy.shape == said.logsumexp.shape == (0,)
