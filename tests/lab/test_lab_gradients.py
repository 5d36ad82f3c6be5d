"""How much batches' gradients agree: hand-made gradients, the jackknife of a mean, and the trainer's own loss."""

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sgcd.lab.gradients import agreement, gradients, jackknife, left_out, scaled
from sgcd.learn.batch import Example
from sgcd.measure.statistics import spread
from sgcd.records import Rollout, Verdict


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_agreement_is_the_mean_cosine_over_pairs():
    assert agreement(rows([1, 0], [5, 0], [0, 2])) == pytest.approx(1 / 3)
    assert agreement(rows([1, 0], [-3, 0])) == pytest.approx(-1)
    assert agreement(rows([1, 0], [0, 0])) == 0


def test_adam_scales_away_what_is_large_everywhere():
    loud = rows([100, 1], [-100, 1], [100, 1], [-100, 1])
    assert agreement(loud) == pytest.approx(-1 / 3, abs=1e-3)
    assert np.allclose(np.abs(scaled(loud)), 1)
    assert agreement(scaled(loud)) == pytest.approx(1 / 3)
    assert np.isfinite(scaled(rows([0, 1], [0, 2]))).all()


def test_batches_are_left_out_in_turn_and_the_scale_is_found_anew():
    some = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    plain, adam = left_out(some, adam=False), left_out(some, adam=True)
    assert len(plain) == len(adam) == 6
    assert plain[0] == pytest.approx(agreement(some))
    assert plain[2] == pytest.approx(agreement(np.delete(some, 1, axis=0)))
    assert adam[2] == pytest.approx(agreement(scaled(np.delete(some, 1, axis=0))))


def test_the_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(1).normal(size=9)
    found = jackknife(np.array([values.mean(), *((values.sum() - v) / 8 for v in values)]))
    expected = spread(values)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.kind == "jackknife over 9 batches"
    assert jackknife(np.zeros(4)).reason == "too few batches for an interval: 3"


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
        task="t", category="action", sibling=0, seed=0, prompt=np.array([1, 2], np.int32), insert_at=1,
        response=response, mask=mask, kinds=mask.astype(np.uint8), sampled_logp=np.zeros(4, np.float32), turns=(),
        messages=(), tools=(), ending="answered", verdict=Verdict(1.0, True),
    )  # fmt: skip
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    logp = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[1:, 0]
    old = logp.detach().numpy()

    def of(*advantage: float) -> np.ndarray:
        (row,) = gradients(model, [[Example(rollout, np.array(advantage, np.float32), old)]])
        return row

    assert np.allclose(of(2, -1, 7, 0), 2 * of(1, 0, 0, 0) - of(0, 1, 0, 0), atol=1e-7)
    loss = -(logp * torch.tensor([2.0, -1.0, 0.0, 0.5])).sum() / 3
    wanted = torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert np.allclose(of(2, -1, 7, 0.5), wanted.numpy(), atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
