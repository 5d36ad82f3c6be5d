"""LoRA: only the adapter moves; a stopped run goes on to the bit; what is saved is plain, the adapter beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen3_5ForCausalLM, Qwen3_5TextConfig

from helpers.scoring import logprobs_of
from helpers.tiny_policy import CHAT, Example, Watcher, build_context, model, recipe, rollout, stepped
from sgcd.errors import PolicyError
from sgcd.learn.policy.checkpoint import BestStep, TrainerState, link_best, load_checkpoint, save_checkpoint
from sgcd.learn.policy.load import Policy, load_policy, load_trainable_policy, save_policy
from sgcd.learn.policy.lora import adapter_disabled, add_adapter
from sgcd.learn.policy.teacher_policies import InitialPolicy, MovingAverage
from sgcd.learn.settings import LoraSettings, OptimizerSettings, PolicySettings
from sgcd.learn.training.optimizer import build_optimizer
from sgcd.storage.run_folder import RunFolder

LORA = LoraSettings(rank=3, alpha=6)
SETTINGS = OptimizerSettings(lr=0.02, micro_batch_tokens=30)
ROLLOUTS = [rollout("xx.xx", sibling=index) for index in range(4)]
EXAMPLES = [Example(each, np.full(5, 1.0 - each.sibling, np.float32), np.full(5, -4, np.float32)) for each in ROLLOUTS]
IDS = torch.tensor([[5, 9, 30, 11, 7]])


def hybrid() -> Any:
    """A random Qwen3.5: three layers of linear attention, one of full attention."""
    torch.manual_seed(1)
    shape: Any = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "head_dim": 8}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    shape |= {"linear_num_key_heads": 1, "linear_num_value_heads": 2, "max_position_embeddings": 256}
    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(vocab_size=CHAT.vocab_size, **shape)).eval()


def adapted(made: Any, told: LoraSettings = LORA, seed: int = 0) -> Any:
    add_adapter(made, told, seed)
    return made


def step(policy: Any, optimizer: Any, number: int) -> None:
    assert not stepped(policy, optimizer, EXAMPLES, SETTINGS, number).skipped


def logits(policy: Any) -> torch.Tensor:
    with torch.no_grad():
        return policy(input_ids=IDS).logits


@pytest.mark.parametrize("make", [model, hybrid])
def test_three_steps_saved_merged_and_loaded_by_plain_transformers(make: Any, tmp_path: Path) -> None:
    policy = adapted(make())
    frozen = {name: each.clone() for name, each in policy.named_parameters() if not each.requires_grad}
    start, optimizer = logits(policy), build_optimizer(policy, SETTINGS)
    for number in range(1, 4):
        step(policy, optimizer, number)
    assert (logits(policy) - start).abs().max() > 0.05
    assert all(torch.equal(each, frozen[name]) for name, each in policy.named_parameters() if name in frozen)
    save_policy(Policy(policy, CHAT), tmp_path / "policy", {})
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert not hasattr(plain, "peft_config")
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in make().named_parameters()}
    assert torch.allclose(logits(plain), logits(policy), atol=2e-6, rtol=0)
    beside: Any = PeftModel.from_pretrained(make(), str(tmp_path / "policy" / "adapter"))
    assert torch.equal(logits(beside), logits(policy))
    card = (tmp_path / "policy" / "README.md").read_text()
    assert f"{sum(each.numel() for each in plain.parameters()):,} parameters" in card


def test_at_first_an_adapter_changes_nothing_and_its_draw_follows_from_the_seed() -> None:
    plain, first, same, other = model(), adapted(model()), adapted(model()), adapted(model(), seed=1)
    assert torch.equal(logits(first), logits(plain))
    draws = [[each for name, each in one.named_parameters() if "lora_A" in name] for one in (first, same, other)]
    assert len(draws[0]) == 7  # q, k, v, o, gate, up, down: all but the head
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(draws[0], draws[2], strict=True))


def test_only_what_is_named_is_adapted() -> None:
    policy = adapted(model(), LoraSettings(rank=2, targets=("q_proj", "mlp.down_proj")))
    names = {name.partition(".lora_")[0] for name, each in policy.named_parameters() if each.requires_grad}
    assert names == {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"}


def test_a_target_that_matches_nothing_is_refused() -> None:
    says = (
        r"^policy\.lora\.targets: no linear layer of qwen3 is called 'query'; there are: down_proj, gate_proj, k_proj, "
        r"lm_head, o_proj, q_proj, up_proj, v_proj$"
    )
    with pytest.raises(PolicyError, match=says):
        add_adapter(model(), LoraSettings(rank=2, targets=("q_proj", "query")), 0)


def test_an_adapter_beside_bfloat16_weights_is_float32() -> None:
    policy = adapted(model(torch.bfloat16))
    assert {each.dtype for each in policy.parameters() if each.requires_grad} == {torch.float32}
    step(policy, build_optimizer(policy, SETTINGS), 1)
    assert policy.dtype == torch.bfloat16


def test_a_stopped_run_goes_on_from_the_same_adapter(tmp_path: Path) -> None:
    policies = [Policy(adapted(model(), seed=seed), CHAT) for seed in (0, 1)]
    first, second = (build_optimizer(policy.model, SETTINGS) for policy in policies)
    for number in (1, 2):
        step(policies[0].model, first, number)
    folder = RunFolder.create(tmp_path / "run", "version: 1\n", {})
    state = TrainerState(2, best=BestStep(2, 0.5))
    save_checkpoint(folder, policies[0], first, state=state)
    link_best(folder, state)
    assert (folder.best_path / "adapter" / "adapter_config.json").is_file()
    assert torch.allclose(logits(load_policy(folder.best_path, "float32").model), logits(policies[0].model), atol=2e-6)
    assert load_checkpoint(folder, policies[1], second) == state
    for one, optimizer in zip(policies, (first, second), strict=True):
        step(one.model, optimizer, 3)
    for a, b in zip(policies[0].model.parameters(), policies[1].model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_initial_policy_is_the_one_without_its_adapter() -> None:
    policy, plain = adapted(model()), model()
    initial, optimizer = InitialPolicy(policy), build_optimizer(policy, SETTINGS)
    for number in (1, 2):
        step(policy, optimizer, number)
    with initial.active() as began:
        found = logprobs_of(began, ROLLOUTS, 1.0, 100)
    expected = logprobs_of(plain, ROLLOUTS, 1.0, 100)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not np.array_equal(logprobs_of(policy, ROLLOUTS, 1.0, 100)[0], expected[0])
    assert any(each.requires_grad for each in policy.parameters())
    with adapter_disabled(plain):
        assert torch.equal(logits(plain), logits(model()))


def test_a_moving_average_beside_an_adapter_is_that_of_the_adapter() -> None:
    policy = adapted(model())
    average, optimizer = MovingAverage(policy, 0.5), build_optimizer(policy, SETTINGS)
    before = logits(policy)
    for number in range(1, 4):
        step(policy, optimizer, number)
    after = logits(policy)
    with average.active():
        assert torch.equal(logits(policy), before)
    average.update(optimizer)
    with average.active():
        assert not torch.equal(logits(policy), before) and not torch.equal(logits(policy), after)
    assert torch.equal(logits(policy), after)


def test_layers_are_computed_again_under_an_adapter_too(tmp_path: Path) -> None:
    save_policy(Policy(model(), CHAT), tmp_path, {})
    found: list[torch.Tensor] = []
    for again in (False, True):
        policy = load_trainable_policy(
            PolicySettings(start=str(tmp_path), lora=LORA, gradient_checkpointing=again), seed=5
        ).model
        step(policy, build_optimizer(policy, SETTINGS), 1)
        found.append(logits(policy))
    assert torch.equal(found[0], found[1])


@pytest.mark.slow
def test_a_whole_run_moves_the_adapter_alone(tmp_path: Path) -> None:
    """Sampling, KL to the start, validation and checkpoints; the policy that comes out is plain."""
    import asyncio

    from sgcd.learn.training.trainer import Trainer

    plan = recipe(steps=2, surrogate={"kl": 0.1}, checkpoint={"every": 1}, evaluation={"every": 2, "trials": 1})
    alive = build_context(tmp_path / "run", plan)
    add_adapter(alive.policy.model, LORA, 0)
    watcher = Watcher()
    try:
        asyncio.run(Trainer(plan, alive, watcher, folder=RunFolder.open(tmp_path / "run")).run())
    finally:
        alive.model_thread.shutdown()
    assert watcher.rows[0].kl == 0
    assert (watcher.rows[1].kl or 0) > 0
    assert all((row.sampler_gap_max or 0) < 1e-4 for row in watcher.rows)
    plain = load_policy(tmp_path / "run" / "policy", "float32").model
    assert torch.allclose(logits(plain), logits(alive.policy.model), atol=2e-6)
