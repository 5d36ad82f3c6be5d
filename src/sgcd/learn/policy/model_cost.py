"""What a model of some config costs in memory: runs its shapes on fake tensors and reads no weights."""

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

_PROBE_LENGTHS = (64, 128, 256)
"""Lengths at which the bytes of a forward pass are counted; a parabola through them gives the rest."""


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Counts and bytes of one model, from which the memory of any batch follows."""

    num_weights: int
    num_trained: int
    dtype: torch.dtype
    num_layers: int
    hidden_size: int
    vocab_size: int
    mlp_width: int
    probe_bytes: tuple[int, ...]
    """That the probed layers hold for the backward pass of a row, at `_PROBE_LENGTHS`."""
    layer_ratio: float
    """Layers of the model over probed ones."""
    cache_bytes_per_token: float
    cache_bytes_per_row: float

    def count_row_bytes(self, length: int) -> float:
        """Bytes that all layers hold for the backward pass of one row."""
        return self.layer_ratio * _extrapolate(self.probe_bytes, length)


def measure_model_cost(
    config: Any, dtype: torch.dtype, attn_implementation: str | None, lora: LoraSettings
) -> ModelCost:
    """Count the weights that `config` describes, and run shapes through its first layers."""
    text_config = config.get_text_config()
    with torch.device("meta"):
        model = _build_model(text_config, dtype, attn_implementation)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    num_trained = (
        lora.rank * sum(sum(layer.weight.shape) for layer in find_target_layers(model, lora).values())
        if lora.rank
        else num_weights
    )
    num_probe_layers = _count_probe_layers(text_config)
    probe_config = deepcopy(text_config)
    probe_config.num_hidden_layers, layer_ratio = num_probe_layers, text_config.num_hidden_layers / num_probe_layers
    if getattr(text_config, "layer_types", None):
        probe_config.layer_types = text_config.layer_types[:num_probe_layers]
    with FakeTensorMode():
        model = _build_model(probe_config, dtype, attn_implementation)
        if lora.rank:
            _imitate_adapter(model, lora)
        probe_bytes = tuple(_count_activation_bytes(model, length) for length in _PROBE_LENGTHS)
        bytes_per_token, bytes_per_row = _count_cache_bytes(model)
    return ModelCost(
        num_weights=num_weights,
        num_trained=num_trained,
        dtype=dtype,
        num_layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        vocab_size=text_config.vocab_size,
        mlp_width=max(getattr(text_config, "intermediate_size", 0) or 0, 4 * text_config.hidden_size),
        probe_bytes=probe_bytes,
        layer_ratio=layer_ratio,
        cache_bytes_per_token=layer_ratio * bytes_per_token,
        cache_bytes_per_row=layer_ratio * bytes_per_row,
    )


def _count_probe_layers(text_config: Any) -> int:
    """The smallest number of first layers that has every type of layer."""
    layer_types: list[str] = getattr(text_config, "layer_types", None) or ["full_attention"]
    return max(layer_types.index(layer_type) for layer_type in layer_types) + 1


def _build_model(config: Any, dtype: torch.dtype, attn_implementation: str | None) -> Any:
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    return auto_model.from_config(config, dtype=dtype, attn_implementation=attn_implementation).eval()


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


def _extrapolate(measured: tuple[int, ...], length: int) -> int:
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
