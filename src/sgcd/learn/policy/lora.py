"""LoRA: small matrices beside frozen weights are what is trained; what is saved is merged, the adapter beside it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sgcd.errors import PolicyError
from sgcd.learn.settings import LoraSettings
from sgcd.learn.training.master_weights import HALF_DTYPES
from sgcd.text import get_first_line

ADAPTER_FOLDER = "adapter"
_ADAPTER_WEIGHTS, _ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MODEL_SUFFIX, _PEFT_SUFFIX = ".default.weight", ".weight"
_PEFT_PREFIX = "base_model.model."
"""What peft puts before every name in a saved adapter."""


def add_adapter(model: Any, settings: LoraSettings, seed: int) -> None:
    """Freeze the model and put an adapter beside the linear layers that are named: at first it changes nothing."""
    try:
        import peft
    except ModuleNotFoundError:
        raise PolicyError("policy.lora: peft is not installed; install sgcd[train,lora]") from None
    find_target_layers(model, settings)
    lora_config_class: Any = peft.LoraConfig  # which types alpha as a whole number, and takes any
    config = lora_config_class(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as problem:
            raise PolicyError(f"policy.lora: the model takes no adapter ({get_first_line(problem)})") from problem
    for weight in _adapter_parameters(model).values():
        if weight.dtype in HALF_DTYPES:
            weight.data = weight.data.float()  # small and trained: its own master


def find_target_layers(model: Any, settings: LoraSettings) -> dict[str, nn.Linear]:
    """The layers that are meant; a name that means none is refused."""
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for target in settings.targets:
        if not any(_matches_target(name, target) for name in linear):
            available = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise PolicyError(
                f"policy.lora.targets: no linear layer of {model.config.model_type} is called {target!r}; "
                f"there are: {available}"
            )
    head = model.get_output_embeddings()
    if not settings.targets:
        return {name: layer for name, layer in linear.items() if layer is not head}
    return {
        name: layer
        for name, layer in linear.items()
        if any(_matches_target(name, target) for target in settings.targets)
    }


def has_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


@contextmanager
def adapter_disabled(model: Any) -> Iterator[None]:
    """The model without its adapter: as it was when the run began."""
    layers = list(_lora_layers(model).values()) if has_adapter(model) else []
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_state_dict(model: Any) -> dict[str, Tensor]:
    """The weights of a plain model that computes the same: W + (alpha / rank) B A, under the names that W has."""
    layers, state_dict = _lora_layers(model), dict[str, Tensor]()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if ".lora_" in name:
                continue
            module, separator, leaf = name.partition(".base_layer.")
            if separator and leaf == "weight":
                weight = (weight + layers[module].get_delta_weight("default")).to(weight.dtype)
            state_dict[f"{module}.{leaf}" if separator else name] = weight
    return state_dict


def save_adapter(model: Any, folder: Path) -> None:
    """The adapter alone, as peft reads it; the same adapter gives the same bytes."""
    folder.mkdir(parents=True)
    weights = {
        _PEFT_PREFIX + name.replace(_MODEL_SUFFIX, _PEFT_SUFFIX): tensor.detach().contiguous()
        for name, tensor in _adapter_parameters(model).items()
    }
    save_file(weights, folder / _ADAPTER_WEIGHTS)
    adapter_config = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    json_config = {key: sorted(value) if isinstance(value, set) else value for key, value in adapter_config.items()}
    (folder / _ADAPTER_CONFIG).write_text(json.dumps(json_config, indent=1, sort_keys=True) + "\n")


def load_adapter(folder: Path, model: Any) -> Mapping[str, Tensor]:
    """A saved adapter, under the names that its parameters have in the model."""
    saved = load_file(folder / _ADAPTER_WEIGHTS)
    names = {_PEFT_PREFIX + name.replace(_MODEL_SUFFIX, _PEFT_SUFFIX): name for name in _adapter_parameters(model)}
    return {names.get(name, name): tensor for name, tensor in saved.items()}


def _adapter_parameters(model: Any) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}


def _lora_layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _matches_target(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
