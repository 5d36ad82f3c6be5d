"""Estimates the memory of a recipe from what its model costs, and derives how many tokens a micro-batch may have."""

import os
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch

from sgcd.learn.policy.model_cost import ModelCost, measure_model_cost
from sgcd.learn.settings import MAX_MICRO_BATCH_TOKENS, MAX_TREE_SHARE, LoraSettings
from sgcd.learn.training.optimizer import HALF_DTYPES

_PROCESS_BYTES = 500_000_000
"""Bytes of Python, torch and transformers before a model is loaded."""
_BLOCK_LOGITS = 2**20
"""Logits of a block on a CPU; two are read at a time."""
_CACHE_GROWTH = 1.5
"""The sampler's cache grows by half when it is too short, so up to a third of it is unused."""
_MAX_MEMORY_SHARE = 0.7
"""Share of the machine's memory that derived micro-batches may fill: the estimate does not count what the allocator
keeps."""


@dataclass(frozen=True, slots=True)
class MemoryInputs:
    """The parts of a recipe that decide how much memory it takes."""

    dtype: torch.dtype
    attn_implementation: str | None
    gradient_checkpointing: bool
    lora: LoraSettings
    num_slots: int
    max_length: int
    """Tokens of the longest row: prompt and response."""
    group_size: int
    """Rollouts of a group; no batch holds two groups."""
    training_tokens: int
    scoring_tokens: int
    logits_bytes: int
    """Bytes for logits and the tensors that are made of them."""
    keeps_initial_policy: bool
    keeps_average: bool = False
    has_outside_teacher: bool = False
    """Counted as large as the policy."""
    prompt_tokens: int = 0
    """Of the longest row, the tokens that all siblings have."""
    shares_prefixes: bool = False
    """Whether siblings are read as the tree of their prefixes where that saves enough tokens."""

    @property
    def tree_tokens(self) -> int:
        """The most that the tree of a group can have: the prompt once, and every response."""
        return self.prompt_tokens + self.group_size * (self.max_length - self.prompt_tokens)

    @property
    def max_padded_tokens(self) -> int:
        """The most that the padded rows of a group can have. Rows of which a tree saves enough are never padded."""
        padded = self.group_size * self.max_length
        return min(padded, int(self.tree_tokens / MAX_TREE_SHARE)) if self.shares_prefixes else padded

    def count_tokens(self, micro_batch_tokens: int) -> int:
        """The most tokens that one micro-batch can have under this limit, padding included; one row is never cut."""
        return min(max(micro_batch_tokens, self.max_length), self.max_padded_tokens)

    def count_tree_tokens(self, micro_batch_tokens: int) -> int:
        """The most tokens of a tree in one micro-batch; 0 where siblings are never read as one."""
        return min(self.count_tokens(micro_batch_tokens), self.tree_tokens) if self.shares_prefixes else 0


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes, part by part."""

    process: int
    weights: int
    """Includes the frozen copy of the initial policy, the moving average and the outside teacher, where a KL term or a
    teacher needs them."""
    optimizer: int
    """AdamW's moments, and float32 copies of half-precision weights."""
    cache: int
    """Of the sampler; it is never freed."""
    gradients: int
    activations: int
    """Of one micro-batch in training, with logits."""
    scoring: int
    """One forward pass without gradient, with logits."""
    drawing: int
    """Logits of all slots, in float64, when tokens are sampled."""

    @property
    def total(self) -> int:
        """Training, scoring and drawing alternate, and gradients are kept while the next group is scored."""
        alternating = max(self.gradients + max(self.activations, self.scoring), self.drawing)
        return self.process + self.weights + self.optimizer + self.cache + alternating


def estimate_memory(config: Any, inputs: MemoryInputs) -> MemoryEstimate:
    """The bytes of a recipe whose policy `config` describes."""
    cost = measure_model_cost(config, inputs.dtype, inputs.attn_implementation, inputs.lora)
    return add_up_memory(cost, inputs)


def add_up_memory(cost: ModelCost, inputs: MemoryInputs) -> MemoryEstimate:
    """The same for a model whose cost is known."""
    is_lora, dtype_bytes = inputs.lora.rank > 0, cost.dtype.itemsize
    master_bytes = 4 * cost.num_trained if cost.dtype in HALF_DTYPES and not is_lora else 0
    num_models = 1 + inputs.has_outside_teacher + (inputs.keeps_initial_policy and not is_lora)
    num_tokens, scored_tokens = (
        inputs.count_tokens(limit) for limit in (inputs.training_tokens, inputs.scoring_tokens)
    )
    head_gradient = 0 if is_lora else 4 * cost.hidden_size * cost.vocab_size
    return MemoryEstimate(
        process=_PROCESS_BYTES,
        weights=cost.num_weights * dtype_bytes * num_models
        + (4 * cost.num_trained if is_lora else 0)
        + (4 * cost.num_trained if inputs.keeps_average else 0),
        optimizer=8 * cost.num_trained + master_bytes,
        cache=ceil(
            inputs.num_slots
            * (_CACHE_GROWTH * inputs.max_length * cost.cache_bytes_per_token + cost.cache_bytes_per_row)
        ),
        gradients=4 * cost.num_trained,
        activations=_count_layer_bytes(cost, inputs)
        + _count_logits_bytes(cost, inputs.logits_bytes, num_tokens)
        + head_gradient,
        scoring=scored_tokens * 4 * cost.mlp_width * dtype_bytes
        + _count_logits_bytes(cost, inputs.logits_bytes, scored_tokens),
        drawing=inputs.num_slots * cost.vocab_size * (5 * 8 + dtype_bytes),
    )


def _count_layer_bytes(cost: ModelCost, inputs: MemoryInputs) -> int:
    """What the layers hold of one micro-batch for the backward pass: of padded rows or of a tree, whichever is more.

    A tree is one row of as many tokens, whose attention keeps what that of a row keeps.
    """
    num_tokens = inputs.count_tokens(inputs.training_tokens)
    padded_bytes = num_tokens / inputs.max_length * cost.count_row_bytes(inputs.max_length)
    tree_bytes = cost.count_row_bytes(inputs.count_tree_tokens(inputs.training_tokens))
    layer_bytes = max(padded_bytes, tree_bytes)
    if not inputs.gradient_checkpointing:
        return ceil(layer_bytes)
    kept_inputs = cost.num_layers * num_tokens * cost.hidden_size * cost.dtype.itemsize
    return ceil(layer_bytes / cost.num_layers + kept_inputs)


def _count_logits_bytes(cost: ModelCost, budget: int, num_tokens: int) -> int:
    row_bytes = 4 * cost.vocab_size
    product_bytes, block_bytes = num_tokens * row_bytes, 2 * max(4 * _BLOCK_LOGITS, row_bytes)
    is_product_kept = 2 * product_bytes <= budget
    return min(budget, (1 if is_product_kept else 3) * product_bytes + block_bytes)


def fit_micro_batches(
    cost: ModelCost, inputs: MemoryInputs, available_bytes: int, *, training: int | None, scoring: int | None
) -> MemoryInputs:
    """The inputs with limits in tokens: the given ones, and where none is given the largest that memory has room for.

    A derived limit is at least one row and at most `MAX_MICRO_BATCH_TOKENS`, and holds for groups of any size.
    """
    budget = int(_MAX_MEMORY_SHARE * available_bytes)
    fitted = replace(inputs, training_tokens=training or inputs.max_length, scoring_tokens=scoring or inputs.max_length)
    for name, given in (("training_tokens", training), ("scoring_tokens", scoring)):
        if given is None:
            fitted = replace(fitted, **{name: _find_limit(cost, fitted, name, budget)})
    return fitted


def _find_limit(cost: ModelCost, inputs: MemoryInputs, name: str, budget: int) -> int:
    """The largest limit whose estimate is within the budget, by bisection: the estimate never falls as limits rise."""
    inputs = replace(inputs, group_size=MAX_MICRO_BATCH_TOKENS)
    fits, too_large = inputs.max_length, max(MAX_MICRO_BATCH_TOKENS, inputs.max_length) + 1
    while too_large - fits > 1:
        limit = (fits + too_large) // 2
        if add_up_memory(cost, replace(inputs, **{name: limit})).total <= budget:
            fits = limit
        else:
            too_large = limit
    return fits


def get_available_memory(device: str) -> int:
    """Bytes of the GPU, or the bytes that this process may take."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    physical_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical_bytes, *_container_limits()])


def _container_limits() -> list[int]:
    """The memory limits of a container, if there is one."""
    limits: list[int] = []
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(name) as file:  # noqa: PTH123
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return limits
