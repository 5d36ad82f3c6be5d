"""Computing layers again saves memory and changes no number; kernels and devices that are not here are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny_policy import CHAT, Example, accumulated, model, rollout
from sgcd.errors import PolicyError
from sgcd.learn.policy.load import Policy, load_policy, load_trainable_policy, save_policy
from sgcd.learn.settings import PolicySettings, SurrogateSettings
from sgcd.learn.training.gradient import gradient_checkpointing

EXAMPLES = [
    Example(each, np.full(5, 1.0 - each.sibling, np.float32), np.full(5, -4, np.float32))
    for each in (rollout("xx.xx", sibling=index) for index in range(4))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("policy")
    made = model()
    made.config.attention_dropout = 0.5  # of which nothing may be seen
    save_policy(Policy(made, CHAT), there, {})
    return there


def gradient(policy: Any) -> tuple[float, torch.Tensor, int]:
    """Loss and gradient, and how many bytes the graph holds on to."""
    held = dict[int, int]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), gradient_checkpointing(policy):
        sums = accumulated(policy, EXAMPLES, SurrogateSettings(), 1.0, 1000)
    found = torch.cat([each.grad.flatten() for each in policy.parameters()])
    policy.zero_grad()
    return sums.loss, found, sum(held.values())


def test_layers_that_are_computed_again_give_the_same_bits_and_hold_less(folder: Path) -> None:
    loss, found, held = gradient(load_trainable_policy(PolicySettings(start=str(folder))).model)
    again, same, less = gradient(
        load_trainable_policy(PolicySettings(start=str(folder), gradient_checkpointing=True)).model
    )
    assert loss == again
    assert torch.equal(found, same)
    assert less < held


def test_layers_are_in_training_mode_only_while_they_are_trained(folder: Path) -> None:
    policy = load_trainable_policy(PolicySettings(start=str(folder), gradient_checkpointing=True)).model
    with gradient_checkpointing(policy):
        assert [each.training for each in policy.modules()].count(True) == policy.config.num_hidden_layers
    assert not any(each.training for each in policy.modules())


def test_attention_is_the_kernel_asked_for(folder: Path) -> None:
    assert load_policy(folder, "float32", "eager").model.config._attn_implementation == "eager"
    assert load_policy(folder, "float32").model.config._attn_implementation == "sdpa"


def test_a_kernel_that_is_not_here_is_refused(folder: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"^policy\.attn_implementation: flash_attention_2 cannot be used here \(.*\)$"
    ):
        load_policy(folder, "float32", "flash_attention_2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device")
def test_a_device_that_is_not_here_is_refused(folder: Path) -> None:
    assert load_trainable_policy(PolicySettings(start=str(folder))).model.device.type == "cpu"
    with pytest.raises(PolicyError, match=r"^policy\.device: torch finds no cuda device here; expected auto or cpu"):
        load_trainable_policy(PolicySettings(start=str(folder), device="cuda"))
