"""Batches: who stands where, and that neither splitting, order nor padding changes loss or gradient."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.scoring import logprobs_of
from helpers.tiny_policy import Example, accumulated, credited, model, rollout
from sgcd.errors import RecordError
from sgcd.learn.policy.head import get_head
from sgcd.learn.scoring.forward import (
    PaddedBatch,
    forward_hidden_states,
    pack_policy_tokens,
    pad_batch,
    sampler_mismatch,
    split_by_length,
)
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad
from sgcd.learn.settings import SurrogateSettings
from sgcd.records import Floats, Rollout

MASKS = ("xx..xxx", "x", "....xx", "xxx.x.x.x", "..", "xxxxx")
ROLLOUTS = [rollout(mask, sibling=index, prompt=2 + index % 3) for index, mask in enumerate(MASKS)]
SETTINGS = SurrogateSettings(kl=0.05, clip=0.1, dual_clip=3.0)


def examples(rollouts: list[Rollout]) -> list[Example]:
    """Log-probs around those of the model below, so that some ratios are clipped and some are not."""

    def near(number: Rollout, salt: int) -> Floats:
        draws = np.random.default_rng([number.sibling, salt])
        return (draws.normal(scale=0.3, size=len(number.response)) - 4).astype(np.float32)

    return [Example(each, near(each, 1) + 4, near(each, 2), near(each, 3)) for each in rollouts]


def loss_and_gradient(policy: Any, batch: list[Example], tokens: int) -> tuple[float, torch.Tensor]:
    policy.zero_grad()
    sums = accumulated(policy, batch, SETTINGS, 0.7, tokens)
    return sums.loss, torch.cat([parameter.grad.flatten().clone() for parameter in policy.parameters()])


def written(policy: Any, laid: PaddedBatch) -> torch.Tensor:
    hidden, observed = forward_hidden_states(policy, laid)
    return logprobs_with_grad(hidden, get_head(policy), observed, temperature=0.7)[0]


def test_a_grid_written_out() -> None:
    a, b = rollout("x.x", prompt=2), rollout("xx", prompt=1, sibling=1)
    laid = pad_batch([a, b])
    assert laid.input_ids.tolist() == [[*a.prompt, *a.response], [*b.prompt, *b.response, 0, 0]]
    assert laid.target_mask.int().tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]
    arrays = [np.array([0.5, np.nan, 0.25], np.float32), np.array([2, 4], np.float32)]
    assert pack_policy_tokens(arrays, [a, b]).tolist() == [0.5, 0.25, 2, 4]


def test_micro_batches_keep_to_the_budget_and_sort_by_length() -> None:
    rollouts = [rollout("x" * size, sibling=index, prompt=1) for index, size in enumerate((9, 3, 4, 9, 3, 1))]
    parts = split_by_length(rollouts, 10)
    assert parts == [[5, 1], [4, 2], [0], [3]]
    for part in split_by_length(rollouts, 20):
        assert len(part) * max(1 + len(rollouts[index].response) for index in part) <= 20
    assert split_by_length(rollouts, 1) == [
        [5],
        [1],
        [4],
        [2],
        [0],
        [3],
    ]  # one that is too long alone still has to go


def test_the_order_is_a_function_of_the_rollouts_alone() -> None:
    told = [[ROLLOUTS[index].name for index in part] for part in split_by_length(ROLLOUTS, 24)]
    backwards = ROLLOUTS[::-1]
    assert [[backwards[index].name for index in part] for part in split_by_length(backwards, 24)] == told


def test_splitting_and_order_leave_loss_and_gradient_as_they_are() -> None:
    policy = model(torch.float64, 50)
    batch = examples(ROLLOUTS)
    loss, gradient = loss_and_gradient(policy, batch, 10_000)
    assert abs(loss) > 0.01
    for tokens in (1, 12, 25):
        assert len(split_by_length(ROLLOUTS, tokens)) > 1
        split, split_gradient = loss_and_gradient(policy, batch, tokens)
        assert split == pytest.approx(loss, abs=1e-10)
        assert torch.allclose(split_gradient, gradient, atol=1e-10, rtol=0)
    turned = [replace(each, rollout=replace(each.rollout, sibling=9 - each.rollout.sibling)) for each in batch[::-1]]
    shuffled, shuffled_gradient = loss_and_gradient(policy, turned, 25)
    assert shuffled == pytest.approx(loss, abs=1e-10)
    assert torch.allclose(shuffled_gradient, gradient, atol=1e-10, rtol=0)


def test_what_the_policy_did_not_write_may_hold_anything() -> None:
    policy = model(torch.float64, 50)
    batch = examples(ROLLOUTS)
    plain = loss_and_gradient(policy, batch, 25)

    def spoilt(array: Floats, each: Rollout) -> Floats:
        return np.where(each.response_mask, array, np.nan).astype(np.float32)

    strange: list[Example] = []
    for each in batch:
        assert each.initial_logprobs is not None and each.old_logprobs is not None
        arrays = (each.advantage, each.old_logprobs, each.initial_logprobs)
        advantage, old, initial = (spoilt(array, each.rollout) for array in arrays)
        advantage = np.where(each.rollout.response_mask, advantage, np.float32(1e6))  # a signal is finite
        strange.append(Example(each.rollout, advantage, old, initial))
    got = loss_and_gradient(policy, strange, 25)
    assert got[0] == plain[0]
    assert torch.equal(got[1], plain[1])


def test_padding_may_hold_any_id_and_have_any_length() -> None:
    policy = model(torch.float64, 50)
    laid = pad_batch(ROLLOUTS)
    plain = written(policy, laid)
    used = torch.zeros_like(laid.input_ids, dtype=torch.bool)
    for row, each in enumerate(ROLLOUTS):
        used[row, : len(each.prompt) + len(each.response)] = True
    wider = torch.randint(
        1, 50, (len(ROLLOUTS), laid.input_ids.shape[1] + 5), generator=torch.Generator().manual_seed(0)
    )
    wider[:, : laid.input_ids.shape[1]][used] = laid.input_ids[used]
    mask = torch.nn.functional.pad(laid.target_mask, (0, 5))
    got = written(policy, PaddedBatch(wider, mask))
    assert torch.allclose(got, plain, atol=1e-10, rtol=0)


def test_the_gradient_is_the_policy_gradient() -> None:
    """At ratio one: -(1/N) sum_t A_t grad log p(y_t), by autograd on each rollout alone and unpadded."""
    policy = model(torch.float64, 50)
    scored = logprobs_of(policy, ROLLOUTS, 0.7, 10_000)
    batch = [Example(each, np.full(len(each.response), 1.0 - each.sibling, np.float32), scored[index])
             for index, each in enumerate(ROLLOUTS)]  # fmt: skip
    policy.zero_grad()
    accumulated(policy, batch, SurrogateSettings(), 0.7, 25)
    got = torch.cat([parameter.grad.flatten().clone() for parameter in policy.parameters()])
    policy.zero_grad()
    count = sum(each.num_policy_tokens for each in ROLLOUTS)
    for each in ROLLOUTS:
        whole = torch.from_numpy(np.concatenate([each.prompt, each.response]).astype(np.int64))
        logp = torch.log_softmax(policy(input_ids=whole[None]).logits[0] / 0.7, -1)
        for place in np.flatnonzero(each.response_mask):
            at = len(each.prompt) + place
            (-(1.0 - each.sibling) / count * logp[at - 1, whole[at]]).backward(retain_graph=True)
    expected = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
    assert torch.allclose(got, expected, atol=1e-6)  # old log-probs are stored in float32


def test_scores_are_those_of_each_rollout_alone() -> None:
    policy = model(torch.float64, 50)
    scored = logprobs_of(policy, ROLLOUTS, 0.7, 25)
    for each, got in zip(ROLLOUTS, scored, strict=True):
        assert got.dtype == np.float32
        assert not got[~each.response_mask].any()
        whole = torch.from_numpy(np.concatenate([each.prompt, each.response]).astype(np.int64))
        with torch.no_grad():
            logp = torch.log_softmax(policy(input_ids=whole[None]).logits[0] / 0.7, -1)
        alone = logp[torch.arange(len(whole) - 1), whole[1:]][len(each.prompt) - 1 :].numpy()
        assert got[each.response_mask] == pytest.approx(alone[each.response_mask], abs=1e-6)


def test_scoring_leaves_no_gradient_and_no_mode_behind() -> None:
    policy = model()
    logprobs_of(policy, ROLLOUTS, 1.0, 25)
    assert not policy.training
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_the_gap_is_over_written_tokens() -> None:
    a, b = ROLLOUTS[0], ROLLOUTS[1]
    off = [np.where(a.response_mask, a.sampling_logprobs + 0.5, 7).astype(np.float32), b.sampling_logprobs]
    assert sampler_mismatch([a, b], off) == pytest.approx(
        (0.5 * a.num_policy_tokens / (a.num_policy_tokens + b.num_policy_tokens), 0.5)
    )
    assert sampler_mismatch([ROLLOUTS[4]], [ROLLOUTS[4].sampling_logprobs]) == (0.0, 0.0)


def test_an_array_of_another_length_is_refused() -> None:
    each = ROLLOUTS[0]
    with pytest.raises(RecordError, match="loss of t/0: old_logprobs must have 7 entries"):
        credited([Example(each, np.zeros(7, np.float32), np.zeros(6, np.float32))])
