"""The estimate of memory: from shapes alone, and smaller where a recipe saves some."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from helpers.families import family
from helpers.tiny_policy import model, rollout
from sgcd.errors import PolicyError
from sgcd.learn.policy.lora import add_adapter
from sgcd.learn.policy.memory_estimate import (
    MemoryEstimate,
    MemoryInputs,
    add_up_memory,
    estimate_memory,
    fit_micro_batches,
    get_available_memory,
)
from sgcd.learn.policy.model_cost import ModelCost
from sgcd.learn.scoring.forward import ForwardConfig, build_batch, split_micro_batches
from sgcd.learn.settings import MAX_MICRO_BATCH_TOKENS, LoraSettings
from sgcd.records import Rollout

SHAPE: Any = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "head_dim": 16}
CONFIG = LlamaConfig(vocab_size=500, num_attention_heads=4, num_key_value_heads=2, **SHAPE)
WORK = MemoryInputs(
    dtype=torch.float32,
    attn_implementation=None,
    gradient_checkpointing=False,
    lora=LoraSettings(),
    num_slots=8,
    max_length=1000,
    group_size=64,
    training_tokens=8000,
    scoring_tokens=8000,
    logits_bytes=2**20,
    keeps_initial_policy=False,
)
LAYER = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
WEIGHTS = 2 * 500 * 64 + 6 * LAYER + 64


@pytest.fixture(scope="module")
def plain() -> MemoryEstimate:
    return estimate_memory(CONFIG, WORK)


def test_what_can_be_counted_is_counted(plain: MemoryEstimate) -> None:
    assert plain.weights == 4 * WEIGHTS
    assert plain.gradients == 4 * WEIGHTS
    assert plain.optimizer == 8 * WEIGHTS
    assert plain.cache == 8 * 1.5 * 1000 * 6 * 2 * 32 * 4  # slots, growth, tokens, layers, keys and values, width
    assert plain.total > plain.weights + plain.gradients + plain.optimizer + plain.cache + plain.activations


def test_sixteen_bits_halve_what_is_computed_in_and_keep_masters(plain: MemoryEstimate) -> None:
    short = estimate_memory(CONFIG, replace(WORK, dtype=torch.bfloat16))
    assert (short.weights, short.cache) == (plain.weights // 2, plain.cache // 2)
    assert short.optimizer == 12 * WEIGHTS
    assert short.activations < 0.8 * plain.activations


def test_an_adapter_has_few_gradients_and_needs_no_copy_for_kl(plain: MemoryEstimate) -> None:
    lora = estimate_memory(
        CONFIG, replace(WORK, lora=LoraSettings(rank=2, targets=("q_proj",)), keeps_initial_policy=True)
    )
    assert lora.gradients == 4 * 6 * 2 * (64 + 64)
    assert lora.weights == plain.weights + lora.gradients
    assert estimate_memory(CONFIG, replace(WORK, keeps_initial_policy=True)).weights == 2 * plain.weights


def test_each_model_of_a_teacher_is_counted(plain: MemoryEstimate) -> None:
    assert estimate_memory(CONFIG, replace(WORK, has_outside_teacher=True)).weights == 2 * plain.weights
    assert estimate_memory(CONFIG, replace(WORK, keeps_average=True)).weights == 2 * plain.weights
    lora = replace(WORK, lora=LoraSettings(rank=2, targets=("q_proj",)))
    adapter = 4 * 6 * 2 * (64 + 64)
    assert estimate_memory(CONFIG, replace(lora, keeps_average=True)).weights == plain.weights + 2 * adapter


def test_layers_that_are_computed_again_are_held_one_at_a_time(plain: MemoryEstimate) -> None:
    again = estimate_memory(CONFIG, replace(WORK, gradient_checkpointing=True))
    assert again.activations < 0.4 * plain.activations


def test_what_is_held_grows_with_the_micro_batch(plain: MemoryEstimate) -> None:
    half = estimate_memory(CONFIG, replace(WORK, training_tokens=4000))
    head = 2**20 + 4 * 500 * 64
    assert half.activations - head == pytest.approx((plain.activations - head) / 2, rel=0.01)
    assert (
        estimate_memory(CONFIG, replace(WORK, training_tokens=1)).activations < half.activations
    )  # one row still has to go


COST = ModelCost(
    num_weights=1000, num_trained=1000, dtype=torch.float32, num_layers=2, hidden_size=8, vocab_size=50, mlp_width=32,
    probe_bytes=(6400, 12_900, 26_000), layer_ratio=2.0, cache_bytes_per_token=16.0, cache_bytes_per_row=0.0,
)  # fmt: skip
rows = st.builds(
    replace,
    st.just(WORK),
    max_length=st.integers(51, 400),
    prompt_tokens=st.integers(0, 50),
    group_size=st.integers(1, 16),
    shares_prefixes=st.booleans(),
    gradient_checkpointing=st.booleans(),
)


@settings(deadline=None)
@given(rows, st.integers(1, 10**10), st.one_of(st.none(), st.integers(1, 5000)))
def test_a_derived_limit_is_the_largest_that_fits(inputs: MemoryInputs, machine: int, scoring: int | None) -> None:
    fitted = fit_micro_batches(COST, inputs, machine, training=None, scoring=scoring)
    limit = fitted.training_tokens
    assert inputs.max_length <= limit <= MAX_MICRO_BATCH_TOKENS
    assert fitted.scoring_tokens == scoring or scoring is None
    many = replace(fitted, group_size=MAX_MICRO_BATCH_TOKENS, scoring_tokens=scoring or inputs.max_length)
    assert limit == inputs.max_length or add_up_memory(COST, many).total <= 0.7 * machine
    assert limit == MAX_MICRO_BATCH_TOKENS or (
        add_up_memory(COST, replace(many, training_tokens=limit + 1)).total > int(0.7 * machine)
    )
    assert limit <= fit_micro_batches(COST, inputs, 2 * machine, training=None, scoring=scoring).training_tokens


@settings(deadline=None)
@given(rows, st.integers(1, 5000))
def test_limits_that_are_given_are_kept(inputs: MemoryInputs, tokens: int) -> None:
    fitted = fit_micro_batches(COST, inputs, 10**9, training=tokens, scoring=tokens + 1)
    assert (fitted.training_tokens, fitted.scoring_tokens) == (tokens, tokens + 1)


def siblings_of(num_prompt: int, responses: list[int]) -> list[Rollout]:
    """Siblings with responses of these lengths; some begin alike."""
    parts = [rollout("x" * length, sibling=sibling, prompt=num_prompt) for sibling, length in enumerate(responses)]
    first = np.arange(3, 3 + num_prompt).astype(np.int32)
    return [
        replace(each, prompt=first, response=(np.arange(len(each.response)) * (1 + index % 3) % 50).astype(np.int32))
        for index, each in enumerate(parts)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 200), st.booleans())
def test_no_micro_batch_has_more_tokens_than_are_counted(
    num_prompt: int, responses: list[int], limit: int, shares: bool
) -> None:
    policy, group = POLICY, siblings_of(num_prompt, responses)
    longest = num_prompt + max(responses)
    inputs = replace(WORK, max_length=longest, prompt_tokens=num_prompt, group_size=len(group), shares_prefixes=shares)
    config = ForwardConfig(micro_batch_tokens=limit, share=shares)
    for indices in split_micro_batches(policy, group, config):
        batch = build_batch(policy, [group[index] for index in indices], config)
        assert batch.num_tokens <= inputs.count_tokens(limit)
        assert batch.num_tokens <= limit or len(indices) == 1


POLICY = model(torch.float32, 60)


def test_a_group_is_counted_as_its_tree(plain: MemoryEstimate) -> None:
    siblings = replace(WORK, group_size=8, prompt_tokens=900)
    padded, tree = (estimate_memory(CONFIG, replace(siblings, shares_prefixes=shares)) for shares in (False, True))
    head = 2**20 + 4 * 500 * 64
    assert padded.activations == plain.activations
    # 900 + 8 x 100 tokens instead of 8 x 1000; padded rows would be taken for 2,000 tokens at most
    assert tree.activations - head == pytest.approx((padded.activations - head) * 2000 / 8000, rel=0.01)
    assert tree.scoring < padded.scoring


def test_layers_of_several_kinds_are_weighed() -> None:
    told = estimate_memory(family("gemma3").config, WORK)
    assert told.activations > 0
    assert told.cache > 0


@pytest.mark.parametrize(("name", "rank"), [("qwen3", 0), ("qwen3.5", 2)])
def test_a_pass_on_shapes_holds_what_a_real_one_holds(name: str, rank: int) -> None:
    config, lora = deepcopy(family(name).config), LoraSettings(rank=rank)
    config.num_hidden_layers = len(set(config.layer_types))
    config.layer_types = sorted(set(config.layer_types), reverse=True)
    one_row = replace(WORK, max_length=128, training_tokens=128, group_size=1, logits_bytes=0, lora=lora)
    head_gradient = 0 if rank else 4 * config.vocab_size * config.hidden_size
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if rank:
        add_adapter(model, lora, seed=0)
    assert estimate_memory(config, one_row).activations == held_bytes(model, 128) + head_gradient


def held_bytes(model: Any, length: int) -> int:
    """What a forward pass keeps for the backward pass, weights not counted."""
    weights, held = {weight.data_ptr() for weight in model.parameters()}, dict[int, Any]()

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for pointer, storage in held.items() if pointer not in weights)


def test_a_target_that_matches_nothing_is_known_before_weights_are_read() -> None:
    with pytest.raises(PolicyError, match=r"^policy\.lora\.targets: no linear layer of llama is called 'query'"):
        estimate_memory(CONFIG, replace(WORK, lora=LoraSettings(rank=2, targets=("query",))))


def test_the_machine_has_some_memory() -> None:
    assert get_available_memory("cpu") > 2**28
