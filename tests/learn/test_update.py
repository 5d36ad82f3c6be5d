"""One optimiser step: the rate, the clipped gradient, and what is never taken."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.scoring import logprobs_of
from helpers.tiny_policy import Example, model, rollout, stepped
from sgcd.learn.settings import OptimizerSettings
from sgcd.learn.training.optimizer import build_optimizer, learning_rate
from sgcd.storage.metrics import OptimizerMetrics

ROLLOUTS = [rollout("xx.xx", sibling=index) for index in range(4)]


def examples(policy: Any, advantage: float = 1.0) -> list[Example]:
    scored = logprobs_of(policy, ROLLOUTS, 1.0, 1000)
    return [Example(each, np.full(5, advantage, np.float32), old) for each, old in zip(ROLLOUTS, scored, strict=True)]


def moved(policy: Any, batch: list[Example], **settings: Any) -> tuple[OptimizerMetrics, float]:
    """What an update says, and how far any weight went."""
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    told = OptimizerSettings(**{"lr": 0.01, **settings})
    done = stepped(policy, build_optimizer(policy, told), batch, told, 1)
    after = [parameter.detach() for parameter in policy.parameters()]
    return done, max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))


def test_warm_up_is_linear_and_then_the_rate_is_constant() -> None:
    settings = OptimizerSettings(lr=0.8, warmup=4)
    assert [learning_rate(settings, step) for step in range(1, 7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert learning_rate(OptimizerSettings(lr=0.8), 1) == 0.8


def test_what_succeeded_becomes_likelier() -> None:
    policy = model(size=50)
    before = logprobs_of(policy, ROLLOUTS, 1.0, 1000)
    done, far = moved(policy, examples(policy))
    after = logprobs_of(policy, ROLLOUTS, 1.0, 1000)
    assert sum(scores.sum() for scores in after) > sum(scores.sum() for scores in before)
    assert far == pytest.approx(0.01, rel=0.01)  # the first step of Adam goes the learning rate's length
    assert (done.skipped, done.lr, done.kl) == ("", 0.01, None)
    assert done.loss == pytest.approx(-1)
    assert done.entropy == pytest.approx(np.log(50), abs=0.5)


def test_the_gradient_is_clipped_and_reported_as_it_was() -> None:
    policy = model(size=50)
    seen: list[float] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            grads = [parameter.grad for parameter in policy.parameters()]
            seen.append(float(torch.cat([grad.flatten() for grad in grads if grad is not None]).norm()))

    settings = OptimizerSettings(lr=0.01, clip_norm=0.001)
    done = stepped(policy, Watching(policy.parameters(), lr=1), examples(policy), settings, 1)
    assert done.grad_norm is not None
    assert done.grad_norm > 0.01
    assert seen == pytest.approx([0.001], rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing(value: float) -> None:
    policy = model(size=50)
    batch = examples(policy)
    if np.isinf(value):
        batch[2].advantage[:] = np.finfo(np.float32).max  # finite, but not their sum
    else:
        batch[2] = replace(batch[2], old_logprobs=np.full(5, value, np.float32))
    done, far = moved(policy, batch)
    assert far == 0
    assert done.skipped == "the loss was not finite"
    assert done.loss is None
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_a_batch_in_which_nothing_was_written_moves_nothing() -> None:
    policy = model(size=50)
    empty = [Example(rollout("...", sibling=1), np.ones(3, np.float32), np.zeros(3, np.float32))]
    done, far = moved(policy, empty)
    assert (done.skipped, done.loss, far) == ("no token was written", None, 0)
