"""How much batches' gradients agree: hand-made gradients, the jackknife of a mean, and the trainer's own loss."""

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from helpers.tiny_policy import Example, credited
from sgcd.records import Rollout, Verdict
from sgcd.study.gradient_noise import (
    compute_group_gradients,
    draw_batch_pairs,
    leave_one_out_cosines,
    scale_like_adam,
)


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def pairs(groups: int, size: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return draw_batch_pairs(groups, size, np.random.default_rng(0))


def test_two_batches_share_no_group_and_every_group_is_as_likely():
    first, second = pairs(7, 3)
    assert (first.sum(axis=1) == 3).all() and (second.sum(axis=1) == 3).all()
    assert not (first * second).any()
    for batch in (first, second):
        assert np.allclose(batch.mean(axis=0), 3 / 7, atol=0.02)


def test_agreement_is_the_mean_cosine_over_pairs():
    assert leave_one_out_cosines(rows([1, 0], [5, 0], [0, 2]), pairs(3))[0] == pytest.approx(1 / 3, abs=0.02)
    assert leave_one_out_cosines(rows([1, 0], [-3, 0]), pairs(2))[0] == pytest.approx(-1)
    assert leave_one_out_cosines(rows([1, 0], [0, 0], [0, 0]), pairs(3)).tolist() == [0, 0, 0, 0]
    both = rows([1, 1], [1, -1], [2, 0], [3, 0])
    first, second = pairs(4, 2)
    sums = [first @ both, second @ both]
    cosine = (sums[0] * sums[1]).sum(1) / np.linalg.norm(sums[0], axis=1) / np.linalg.norm(sums[1], axis=1)
    assert leave_one_out_cosines(both, (first, second))[0] == pytest.approx(cosine.mean())


def test_a_group_is_left_out_by_leaving_out_the_pairs_that_it_is_in():
    without = leave_one_out_cosines(rows([1, 0], [5, 0], [0, 2]), pairs(3))[1:]
    assert without.tolist() == pytest.approx([0, 0, 1])


def test_adam_scales_away_what_is_large_everywhere():
    loud = rows([100, 1], [-100, 1], [100, 1], [-100, 1])
    assert leave_one_out_cosines(loud, pairs(4))[0] == pytest.approx(-1 / 3, abs=0.02)
    assert np.allclose(np.abs(scale_like_adam(loud, 1)), 1)
    assert leave_one_out_cosines(scale_like_adam(loud, 1), pairs(4))[0] == pytest.approx(1 / 3, abs=0.02)
    assert np.isfinite(scale_like_adam(rows([0, 1], [0, 2]), 2)).all()


def test_the_scale_is_that_of_whole_batches():
    drawn = np.random.default_rng(0).normal([0, 3], 1, size=(4000, 2)).astype(np.float32)
    batches = drawn.reshape(1000, 4, 2).sum(axis=1)
    root = drawn[0] / scale_like_adam(drawn, 4)[0]
    assert np.allclose(root, np.sqrt(np.square(batches).mean(axis=0)), rtol=0.05)


def test_a_gradient_is_linear_in_the_weights_and_is_that_of_the_policy_gradient():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=32,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    response = np.array([3, 4, 5, 6], np.int32)
    mask = np.array([1, 1, 0, 1], bool)
    rollout = Rollout(
        task="t", category="action", sibling=0, seed=0, prompt=np.array([1, 2], np.int32), reference_position=1,
        response=response, response_mask=mask, token_kinds=mask.astype(np.uint8),
        sampling_logprobs=np.zeros(4, np.float32), turns=(),
        messages=(), tools=(), end_reason="answered", verdict=Verdict(1.0, True),
    )  # fmt: skip
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    logp = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[1:, 0]
    old = logp.detach().numpy()

    def of(*advantage: float) -> np.ndarray:
        (row,) = compute_group_gradients(model, [credited([Example(rollout, np.array(advantage, np.float32), old)])])
        return row

    assert np.allclose(of(2, -1, 7, 0), 2 * of(1, 0, 0, 0) - of(0, 1, 0, 0), atol=1e-7)
    loss = -(logp * torch.tensor([2.0, -1.0, 0.0, 0.5])).sum() / 3
    wanted = torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert np.allclose(of(2, -1, 7, 0.5), 3 * wanted.numpy(), atol=3e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
