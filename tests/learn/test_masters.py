"""Weights of sixteen bits move by steps that these cannot hold, and a stopped run goes on from the same copies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny_policy import CHAT, Example, accumulated, model, rollout, stepped
from sgcd.learn.policy.checkpoint import TrainerState, load_checkpoint, save_checkpoint
from sgcd.learn.policy.load import Policy
from sgcd.learn.settings import OptimizerSettings, SurrogateSettings
from sgcd.learn.training.optimizer import MasterAdamW, build_optimizer
from sgcd.storage.run_folder import RunFolder

SETTINGS = OptimizerSettings(lr=1e-5, micro_batch_tokens=20)
EXAMPLES = [
    Example(each, np.full(5, 1.0 - each.sibling, np.float32), np.full(5, -4, np.float32))
    for each in (rollout("xx.xx", sibling=index) for index in range(4))
]


def step(policy: Any, optimizer: MasterAdamW, number: int = 1) -> None:
    assert not stepped(policy, optimizer, EXAMPLES, SETTINGS, number).skipped


def test_float32_weights_are_their_own_masters() -> None:
    policy = model()
    optimizer = build_optimizer(policy, SETTINGS)
    assert all(weight is master for weight, master in optimizer.masters.items())


def test_small_steps_add_up_below_the_bits_of_a_weight() -> None:
    policy = model(torch.bfloat16)
    optimizer = build_optimizer(policy, SETTINGS)
    before = {weight: master.detach().clone() for weight, master in optimizer.masters.items()}
    for number in range(1, 4):
        step(policy, optimizer, number)
    moved = [(master - before[weight]).abs().max().item() for weight, master in optimizer.masters.items()]
    assert max(moved) == pytest.approx(3e-5, rel=0.05)
    for weight, master in optimizer.masters.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, master.bfloat16())
    norm = policy.model.norm.weight
    assert torch.equal(norm, torch.ones_like(norm))  # 1 + 3e-5 is 1 in sixteen bits
    assert not torch.equal(optimizer.masters[norm], torch.ones_like(norm).float())


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    policy = model(torch.bfloat16)
    optimizer = build_optimizer(policy, SETTINGS)
    accumulated(policy, EXAMPLES, SurrogateSettings(), 1.0, 8)
    split = {weight: master.grad for weight, master in optimizer.masters.items()}
    assert all(grad is not None and grad.dtype == torch.float32 for grad in split.values())
    assert all(weight.grad is None for weight in split)
    optimizer.zero_grad()
    total: dict[Any, Any] = {}
    for each in EXAMPLES:  # alone, and added up here
        accumulated(policy, [each], SurrogateSettings(), 1.0, 8)
        for weight, master in optimizer.masters.items():
            assert master.grad is not None
            total[weight] = total.get(weight, 0) + master.grad / len(EXAMPLES)
        optimizer.zero_grad()
    for weight, grad in split.items():
        assert grad is not None
        assert torch.allclose(grad, total[weight], atol=1e-2 * float(total[weight].abs().max()), rtol=0)


def test_a_run_in_bfloat16_goes_on_from_the_same_copies(tmp_path: Path) -> None:
    policies = [Policy(model(torch.bfloat16, seed=seed), CHAT) for seed in (3, 4)]
    first, second = (build_optimizer(policy.model, SETTINGS) for policy in policies)
    step(policies[0].model, first)
    folder = RunFolder.create(tmp_path / "run", "version: 1\n", {})
    save_checkpoint(folder, policies[0], first, state=TrainerState(1))
    assert load_checkpoint(folder, policies[1], second) == TrainerState(1)
    for number in (2, 3):
        step(policies[0].model, first, number)
        step(policies[1].model, second, number)
    for a, b in zip(first.masters.items(), second.masters.items(), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
