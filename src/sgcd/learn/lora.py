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
from sgcd.learn.locate import first_line
from sgcd.learn.masters import SHORT
from sgcd.learn.settings import LoraSettings

ADAPTER = "adapter"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
OURS, THEIRS = ".default.weight", ".weight"
WRAPPED = "base_model.model."
"""What peft puts before every name in a saved adapter."""


def adapt(model: Any, told: LoraSettings, seed: int) -> None:
    """Freeze the model and put an adapter beside the linear layers that are named: at first it changes nothing."""
    try:
        import peft
    except ModuleNotFoundError:
        raise PolicyError("policy.lora: peft is not installed; install sgcd[train,lora]") from None
    targeted(model, told)
    wanted: Any = peft.LoraConfig  # which types alpha as a whole number, and takes any
    config = wanted(
        r=told.rank, lora_alpha=told.alpha, target_modules=list(told.targets) or "all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as problem:
            raise PolicyError(f"policy.lora: the model takes no adapter ({first_line(problem)})") from problem
    for weight in _own(model).values():
        if weight.dtype in SHORT:
            weight.data = weight.data.float()  # small and trained: its own master


def targeted(model: Any, told: LoraSettings) -> dict[str, nn.Linear]:
    """The layers that are meant; a name that means none is refused."""
    linear = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    for target in told.targets:
        if not any(_ends(name, target) for name in linear):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise PolicyError(
                f"policy.lora.targets: no linear layer of {model.config.model_type} is called {target!r}; "
                f"there are: {there}"
            )
    head = model.get_output_embeddings()
    if not told.targets:
        return {name: each for name, each in linear.items() if each is not head}
    return {name: each for name, each in linear.items() if any(_ends(name, target) for target in told.targets)}


def adapted(model: Any) -> bool:
    return hasattr(model, "peft_config")


@contextmanager
def bare(model: Any) -> Iterator[None]:
    """The model without its adapter: as it was when the run began."""
    layers = list(_layers(model).values()) if adapted(model) else []
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(model: Any) -> dict[str, Tensor]:
    """The weights of a plain model that computes the same: W + (alpha / rank) B A, under the names that W has."""
    layers, found = _layers(model), dict[str, Tensor]()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if ".lora_" in name:
                continue
            module, inside, leaf = name.partition(".base_layer.")
            if inside and leaf == "weight":
                weight = (weight + layers[module].get_delta_weight("default")).to(weight.dtype)
            found[f"{module}.{leaf}" if inside else name] = weight
    return found


def save_adapter(model: Any, folder: Path) -> None:
    """The adapter alone, as peft reads it; the same adapter gives the same bytes."""
    folder.mkdir(parents=True)
    weights = {WRAPPED + name.replace(OURS, THEIRS): each.detach().contiguous() for name, each in _own(model).items()}
    save_file(weights, folder / WEIGHTS)
    told = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in told.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


def stored(folder: Path, model: Any) -> Mapping[str, Tensor]:
    """A saved adapter, under the names that its parameters have in the model."""
    held = load_file(folder / WEIGHTS)
    names = {WRAPPED + name.replace(OURS, THEIRS): name for name in _own(model)}
    return {names.get(name, name): each for name, each in held.items()}


def _own(model: Any) -> dict[str, Tensor]:
    return {name: each for name, each in model.named_parameters() if ".lora_" in name}


def _layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: each for name, each in model.named_modules() if isinstance(each, LoraLayer)}


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
