"""TRL's streamed divergence over the whole vocabulary, as an oracle for ours with K large enough to leave no tail."""

from typing import Any

import pytest
import torch

from sgcd.bench.arms import build_head_inputs
from sgcd.credit.divergence import divergence_of
from sgcd.learn.scoring.logits.stats import stats_at, topk_stats
from sgcd.learn.scoring.teacher import topk_observed_tail

WHY = "TRL is not in this environment; `make integration` runs tests/peers in .venv-trl"
oracle: Any = pytest.importorskip("trl.kernels.chunked_divergence", reason=WHY).ChunkedDivergenceFunction


@pytest.mark.parametrize(("k", "tolerance"), [(700, 1e-5), (20, None)])
@pytest.mark.parametrize(("kind", "beta"), [("reverse_kl", 1.0), ("forward_kl", 0.0), ("jsd", 0.5)])
def test_divergence_and_entropy_are_those_of_trl(kind: Any, beta: float, k: int, tolerance: float | None) -> None:
    given = build_head_inputs(40, 32, 700, dtype=torch.float32)
    top = topk_stats(given.teacher, given.head, given.observed, k=k, temperature=0.7)
    said = stats_at(given.student, given.head, given.observed, ids=[top.ids], temperature=0.7)
    ((logp, rest),) = said.logprobs_at
    p = topk_observed_tail(top.ids, given.observed, logp, said.observed_logprob, rest)
    q = topk_observed_tail(top.ids, given.observed, top.logprobs, top.observed_logprob, top.tail_logprob)
    d = divergence_of(p, q, kind)
    weight = given.head.weight
    whole, entropy = oracle.apply(
        given.student, weight, None, given.teacher, weight, None, beta, 0.7, 1.0, None, 1.0, None
    )
    assert torch.allclose(said.entropy, entropy, atol=1e-4)
    assert (d <= whole + 1e-5).all()
    if tolerance:
        assert torch.allclose(d, whole, atol=tolerance)
