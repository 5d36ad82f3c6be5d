"""What bounded weights can do to a gradient, and to a policy, token by token and in a batch (paper, section 4.5).

A tabular softmax policy: a row of logits for each state, so that gradients and divergences are exact.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.published_losses import tokens_of
from sgcd.learn.settings import SurrogateSettings
from sgcd.learn.training.surrogate import token_losses

STATES, ACTIONS, CAP = 3, 4, 2.0
PLAIN, DUAL = SurrogateSettings(), SurrogateSettings(dual_clip=3.0)


class Drawn:
    """A policy, the tokens that it wrote, their advantages, their weights, and how far it has moved since."""

    def __init__(self, seed: int, count: int, drift: float) -> None:
        rng = np.random.default_rng(seed)
        self.logits = torch.tensor(rng.normal(0, 2, (STATES, ACTIONS)))
        self.states = torch.tensor(rng.integers(0, STATES, count))
        self.actions = torch.tensor(rng.integers(0, ACTIONS, count))
        self.advantage = torch.tensor(rng.normal(0, 1, count))
        self.weight = torch.tensor(rng.uniform(1, CAP, count))
        self.old = self.logp(self.logits) + torch.tensor(rng.normal(0, drift, count))

    def logp(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)[self.states, self.actions]

    def gradients(self, advantage: Tensor, trust: SurrogateSettings) -> Tensor:
        """One row for each token: the gradient of its loss."""
        logits = self.logits.clone().requires_grad_()
        losses = token_losses(tokens_of(self.logp(logits), self.old, advantage), trust)
        rows = [torch.autograd.grad(loss, logits, retain_graph=True)[0].reshape(-1) for loss in losses]
        return torch.stack(rows)


DRAWS = st.builds(Drawn, st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5]))


@pytest.mark.parametrize("trust", [PLAIN, DUAL], ids=["clip", "dual clip"])
@given(drawn=DRAWS)
def test_a_weighted_gradient_points_the_same_way_and_is_at_most_cap_times_as_long(
    drawn: Drawn, trust: SurrogateSettings
):
    plain, weighted = (drawn.gradients(drawn.advantage * w, trust) for w in (torch.tensor(1.0), drawn.weight))
    assert torch.allclose(weighted, drawn.weight[:, None] * plain, rtol=1e-12, atol=1e-12)
    assert ((plain * weighted).sum(1) >= 0).all()
    assert (weighted.norm(dim=1) <= CAP * plain.norm(dim=1) * (1 + 1e-12)).all()


@given(drawn=DRAWS)
def test_a_batch_moves_at_most_cap_times_the_sum_of_its_tokens(drawn: Drawn):
    plain, weighted = drawn.gradients(drawn.advantage, PLAIN), drawn.gradients(drawn.advantage * drawn.weight, PLAIN)
    assert weighted.sum(0).norm() <= CAP * plain.norm(dim=1).sum() * (1 + 1e-12)


@given(drawn=DRAWS, rate=st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
def test_a_step_changes_the_policy_at_most_as_the_corollary_says(drawn: Drawn, rate: float):
    """KL(old || new) in all states together <= eta^2 c^2 (sum of token gradient norms)^2 / 4, for every step length."""
    plain, weighted = drawn.gradients(drawn.advantage, PLAIN), drawn.gradients(drawn.advantage * drawn.weight, PLAIN)
    moved = drawn.logits - rate * weighted.sum(0).reshape(STATES, ACTIONS)
    before, after = drawn.logits.log_softmax(-1), moved.log_softmax(-1)
    kl = (before.exp() * (before - after)).sum()
    assert kl <= (rate * CAP * plain.norm(dim=1).sum()) ** 2 / 4 + 1e-12
