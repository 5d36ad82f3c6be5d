"""Draws: uniforms become ids through the cumulative distribution, and log-probabilities stay the policy's own."""

import math

import numpy as np
import pytest
import torch

from sgcd.errors import PolicyError
from sgcd.learn.sampling.sample_tokens import UniformStream, keep_top_p, sample_tokens

P = [0.1, 0.4, 0.0, 0.3, 0.2, 0.0]
LOGITS = torch.tensor([P]).log()
ALMOST_ONE = 1 - 2**-53


def ids_of(uniforms: list[float], temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    return sample_tokens(LOGITS.expand(len(uniforms), -1), uniforms, [temperature] * len(uniforms), top_p=top_p)[0]


def test_a_uniform_falls_into_the_share_of_its_id() -> None:
    assert ids_of([0.0, 0.099, 0.101, 0.499, 0.501, 0.799, 0.801, ALMOST_ONE]) == [0, 0, 1, 1, 3, 3, 4, 4]


def test_ids_come_as_often_as_they_should() -> None:
    counts = np.bincount(ids_of(((np.arange(1000) + 0.5) / 1000).tolist()), minlength=6)
    assert counts.tolist() == [100, 400, 0, 300, 200, 0]


def test_temperature_divides_the_logits() -> None:
    squared = np.array(P) ** 2 / np.sum(np.array(P) ** 2)
    counts = np.bincount(ids_of(((np.arange(1000) + 0.5) / 1000).tolist(), temperature=0.5), minlength=6)
    assert np.abs(counts - 1000 * squared).max() <= 1
    _, logp = sample_tokens(LOGITS, [0.3], [0.5], top_p=1.0)
    assert logp == pytest.approx([math.log(squared[1])], abs=1e-6)


def test_temperature_zero_is_the_likeliest_and_of_equals_the_lowest() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 0.0, 0.0, 3.0]])
    ids, logp = sample_tokens(logits, [ALMOST_ONE, ALMOST_ONE], [0.0, 0.0], top_p=1.0)
    assert ids == [1, 0]
    assert logp == pytest.approx([float(row.log_softmax(0).max()) for row in logits], abs=1e-6)


def test_rows_have_temperatures_of_their_own() -> None:
    assert sample_tokens(LOGITS.expand(2, -1), [0.0, 0.0], [0.0, 1.0], top_p=1.0)[0] == [1, 0]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 3, 4]), (1.0, [0, 1, 3, 4])]
)
def test_a_nucleus_is_the_fewest_likeliest_ids_that_reach_it(top_p: float, kept: list[int]) -> None:
    assert keep_top_p(torch.tensor([P], dtype=torch.float64), top_p)[0].nonzero()[:, 0].tolist() == kept
    assert sorted(set(ids_of(np.linspace(0, ALMOST_ONE, 200).tolist(), top_p=top_p))) == kept


def test_the_log_probability_is_the_one_before_the_nucleus() -> None:
    assert sample_tokens(LOGITS, [0.5], [1.0], top_p=0.4)[1] == pytest.approx([math.log(0.4)], abs=1e-6)


def test_logits_that_are_not_finite_are_named() -> None:
    with pytest.raises(PolicyError, match="the policy's logits are not finite"):
        sample_tokens(torch.tensor([[0.0, torch.nan]]), [0.5], [1.0], top_p=1.0)


def test_the_kth_uniform_is_the_streams_kth() -> None:
    stream = UniformStream(2**62 + 5)
    expected = np.random.Generator(np.random.Philox(2**62 + 5)).random(200).tolist()
    assert [stream.next() for _ in range(200)] == expected
    assert UniformStream(1).next() != UniformStream(2).next()
