"""Estimates the memory of a recipe from a model's config: runs its shapes on fake tensors and reads no weights."""

import os
from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sgcd.learn.policy.lora import find_target_layers
from sgcd.learn.settings import LoraSettings
from sgcd.learn.training.optimizer import HALF_DTYPES

_PROBE_LENGTHS = (64, 128, 256)
"""Lengths at which the bytes of a forward pass are counted; a parabola through them gives the rest."""
_PROCESS_BYTES = 500_000_000
"""Bytes of Python, torch and transformers before a model is loaded."""
_BLOCK_LOGITS = 2**20
"""Logits of a block on a CPU; two are read at a time."""
_CACHE_GROWTH = 1.5
"""The sampler's cache grows by half when it is too short, so up to a third of it is unused."""


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
    """Count the weights that `config` describes, run shapes through its first layers, and add up the bytes."""
    text_config, dtype_bytes = config.get_text_config(), inputs.dtype.itemsize
    with torch.device("meta"):
        model = _build_model(text_config, inputs)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    lora_rank = inputs.lora.rank
    num_trained = (
        lora_rank * sum(sum(layer.weight.shape) for layer in find_target_layers(model, inputs.lora).values())
        if lora_rank
        else num_weights
    )
    num_probe_layers = _count_probe_layers(text_config)
    probe_config = deepcopy(text_config)
    probe_config.num_hidden_layers, layer_ratio = num_probe_layers, text_config.num_hidden_layers / num_probe_layers
    if getattr(text_config, "layer_types", None):
        probe_config.layer_types = text_config.layer_types[:num_probe_layers]
    with FakeTensorMode():
        model = _build_model(probe_config, inputs)
        if lora_rank:
            _imitate_adapter(model, inputs.lora)
        layer_bytes = layer_ratio * _extrapolate(
            [_count_activation_bytes(model, length) for length in _PROBE_LENGTHS], inputs.max_length
        )
        bytes_per_token, bytes_per_row = (layer_ratio * num_bytes for num_bytes in _count_cache_bytes(model))
    num_rows = min(inputs.group_size, max(1, inputs.training_tokens // inputs.max_length))
    num_tokens = num_rows * inputs.max_length
    activation_bytes = num_rows * layer_bytes
    if inputs.gradient_checkpointing:
        activation_bytes = (
            activation_bytes / text_config.num_hidden_layers
            + text_config.num_hidden_layers * num_tokens * text_config.hidden_size * dtype_bytes
        )
    logit_row_bytes = text_config.vocab_size * 4
    product_bytes, block_bytes = num_tokens * logit_row_bytes, 2 * max(4 * _BLOCK_LOGITS, logit_row_bytes)
    is_product_kept = 2 * product_bytes <= inputs.logits_bytes
    logits_bytes = min(inputs.logits_bytes, (1 if is_product_kept else 3) * product_bytes + block_bytes)
    master_bytes = 4 * num_trained if inputs.dtype in HALF_DTYPES and not lora_rank else 0
    mlp_width = max(getattr(text_config, "intermediate_size", 0) or 0, 4 * text_config.hidden_size)
    scored_tokens = min(max(inputs.scoring_tokens, inputs.max_length), inputs.group_size * inputs.max_length)
    num_models = 1 + inputs.has_outside_teacher + (inputs.keeps_initial_policy and not lora_rank)
    return MemoryEstimate(
        process=_PROCESS_BYTES,
        weights=num_weights * dtype_bytes * num_models
        + (4 * num_trained if lora_rank else 0)
        + (4 * num_trained if inputs.keeps_average else 0),
        optimizer=8 * num_trained + master_bytes,
        cache=ceil(inputs.num_slots * (_CACHE_GROWTH * inputs.max_length * bytes_per_token + bytes_per_row)),
        gradients=4 * num_trained,
        activations=ceil(activation_bytes)
        + logits_bytes
        + (0 if lora_rank else text_config.hidden_size * logit_row_bytes),
        scoring=scored_tokens * 4 * mlp_width * dtype_bytes + logits_bytes,
        drawing=inputs.num_slots * text_config.vocab_size * (5 * 8 + dtype_bytes),
    )


def _count_probe_layers(text_config: Any) -> int:
    """The smallest number of first layers that has every type of layer."""
    layer_types: list[str] = getattr(text_config, "layer_types", None) or ["full_attention"]
    return max(layer_types.index(layer_type) for layer_type in layer_types) + 1


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


def _build_model(config: Any, inputs: MemoryInputs) -> Any:
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    return auto_model.from_config(config, dtype=inputs.dtype, attn_implementation=inputs.attn_implementation).eval()


def _imitate_adapter(model: Any, lora: LoraSettings) -> None:
    """Freeze the weights and add to each target layer what an adapter computes; peft itself takes no fake tensors."""
    model.requires_grad_(False)
    for layer in find_target_layers(model, lora).values():
        layer.down = nn.Parameter(torch.empty(lora.rank, layer.in_features))
        layer.up = nn.Parameter(torch.empty(layer.out_features, lora.rank))
        layer.register_forward_hook(_add_low_rank)


def _add_low_rank(layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + F.linear(F.linear(inputs[0].float(), layer.down), layer.up).to(output.dtype)


def _count_activation_bytes(model: Any, length: int) -> int:
    """Bytes that a forward pass over one row holds for the backward pass, weights not counted.

    With an empty cache, transformers does not look for several sequences in the row. It cannot tell with fake tensors,
    and would make a mask that a real pass does without.
    """
    from transformers import DynamicCache

    input_ids, cache = torch.zeros((1, length), dtype=torch.long), DynamicCache(config=model.config)
    weight_storages = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved_storages: dict[int, Any] = {}

    def save_tensor(tensor: Tensor) -> Tensor:
        saved_storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save_tensor, lambda tensor: tensor):
        model.base_model(input_ids=input_ids, past_key_values=cache, use_cache=False)
    return sum(storage.nbytes() for key, storage in saved_storages.items() if key not in weight_storages)


def _extrapolate(measured: list[int], length: int) -> int:
    """The parabola through the counts at _PROBE_LENGTHS, at `length`: attention may keep length x length numbers."""
    a, b, c = _PROBE_LENGTHS
    first, second = (measured[1] - measured[0]) / (b - a), (measured[2] - measured[1]) / (c - b)
    curve = max(0.0, (second - first) / (c - a))
    return ceil(measured[0] + first * (length - a) + curve * (length - a) * (length - b))


def _count_cache_bytes(model: Any) -> tuple[int, int]:
    """Bytes of the sampler's cache per token, and per row whatever its length."""
    from transformers import DynamicCache

    length = 4
    cache: Any = DynamicCache(config=model.config)
    with torch.no_grad():
        model.base_model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=True, past_key_values=cache)
    bytes_per_token = bytes_per_row = 0
    for layer in cache.layers:
        states = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
        bytes_per_row += sum(_tensor_bytes(tensor) for tensor in states if tensor is not None)
        pairs = [getattr(layer, "keys", None), getattr(layer, "values", None)]
        bytes_per_token += sum(_tensor_bytes(tensor) // length for tensor in pairs if tensor is not None)
    return bytes_per_token, bytes_per_row


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
