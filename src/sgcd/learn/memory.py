"""How much memory a recipe takes, from a model's config alone: its shapes are run through, its weights are not read."""

import os
from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from sgcd.learn.lora import targeted
from sgcd.learn.masters import SHORT
from sgcd.learn.settings import LoraSettings

PROBES = (64, 128, 256)
"""Lengths at which a forward pass is weighed: linear and quadratic parts follow."""
PROCESS = 500_000_000
"""What Python, torch and transformers take before there is a model."""
GROWTH = 1.5
"""The sampler's cache grows by half when it is too short."""


@dataclass(frozen=True, slots=True)
class Work:
    """What of a recipe decides how much memory it takes."""

    dtype: torch.dtype
    attention: str | None
    checkpointing: bool
    lora: LoraSettings
    slots: int
    length: int
    """Of the longest row: prompt and response."""
    rows: int
    """Rollouts of a group: no batch holds two groups."""
    training_tokens: int
    scoring_tokens: int
    logits: int
    """Bytes for logits and what is made of them."""
    kl: bool


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes, part by part."""

    process: int
    weights: int
    """With the frozen copy that a KL term takes."""
    optimizer: int
    """AdamW's moments, and float32 copies of weights with fewer bits."""
    cache: int
    """Of the sampler; it stays."""
    gradients: int
    activations: int
    """Of one micro-batch in training, logits included."""
    scoring: int
    """One forward pass without gradient, logits included."""
    drawing: int
    """Logits of all slots, in float64 for the draw."""

    @property
    def total(self) -> int:
        """Training, scoring and drawing take turns, and gradients stay while the next group is scored."""
        turns = max(self.gradients + max(self.activations, self.scoring), self.drawing)
        return self.process + self.weights + self.optimizer + self.cache + turns


def need(config: Any, work: Work) -> Need:
    """Count the weights that `config` describes, run shapes through its first layers, and add up what would be kept."""
    text, width = config.get_text_config(), work.dtype.itemsize
    with torch.device("meta"):
        model = _model(text, work)
    weights = sum(each.numel() for each in model.parameters())
    lora = work.lora.rank
    trained = lora * sum(sum(each.weight.shape) for each in targeted(model, work.lora).values()) if lora else weights
    depth = _depth(text)
    shallow = deepcopy(text)
    shallow.num_hidden_layers, share = depth, text.num_hidden_layers / depth
    if getattr(text, "layer_types", None):
        shallow.layer_types = text.layer_types[:depth]
    with FakeTensorMode():
        model = _model(shallow, work)
        layers = share * _extrapolated([_kept(model, length) for length in PROBES], work.length)
        token, row = (share * each for each in _memory(model))
    rows = min(work.rows, max(1, work.training_tokens // work.length))
    tokens = rows * work.length
    kept = rows * layers
    if work.checkpointing:
        kept = kept / text.num_hidden_layers + text.num_hidden_layers * tokens * text.hidden_size * width
    head = text.vocab_size * 4
    logits = min(work.logits, 3 * tokens * head)
    short = 4 * trained if work.dtype in SHORT and not lora else 0
    wide = max(getattr(text, "intermediate_size", 0) or 0, 4 * text.hidden_size)
    scored = min(max(work.scoring_tokens, work.length), work.rows * work.length)
    return Need(
        process=PROCESS,
        weights=weights * width * (2 if work.kl and not lora else 1) + (4 * trained if lora else 0),
        optimizer=8 * trained + short,
        cache=ceil(work.slots * (GROWTH * work.length * token + row)),
        gradients=4 * trained,
        activations=ceil(kept) + logits + (0 if lora else text.hidden_size * head),
        scoring=scored * 4 * wide * width + logits,
        drawing=work.slots * text.vocab_size * (5 * 8 + width),
    )


def _depth(text: Any) -> int:
    """So many layers that each kind is among them."""
    kinds: list[str] = getattr(text, "layer_types", None) or ["full_attention"]
    return max(kinds.index(kind) for kind in kinds) + 1


def memory_of(device: str) -> int:
    """Bytes that the machine has: of the graphics processor, or what this process may take."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([there, *_limits()])


def _limits() -> list[int]:
    """What a container allows."""
    found: list[int] = []
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(name) as file:  # noqa: PTH123
                told = file.read().strip()
        except OSError:
            continue
        if told.isdigit():
            found.append(int(told))
    return found


def _model(config: Any, work: Work) -> Any:
    from transformers import AutoModelForCausalLM

    made: Any = AutoModelForCausalLM
    return made.from_config(config, dtype=work.dtype, attn_implementation=work.attention).eval()


def _kept(model: Any, length: int) -> int:
    """Bytes that a forward pass over one row holds for the backward pass, weights not counted."""
    own = {each.untyped_storage()._cdata for each in model.parameters()}
    held: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=False)
    return sum(each.nbytes() for key, each in held.items() if key not in own)


def _extrapolated(found: list[int], length: int) -> int:
    """The parabola through what was weighed at PROBES, at `length`: attention may keep length x length numbers."""
    a, b, c = PROBES
    first, second = (found[1] - found[0]) / (b - a), (found[2] - found[1]) / (c - b)
    curve = max(0.0, (second - first) / (c - a))
    return ceil(found[0] + first * (length - a) + curve * (length - a) * (length - b))


def _memory(model: Any) -> tuple[int, int]:
    """Bytes of the sampler's memory for each token, and for each row whatever its length."""
    from transformers import DynamicCache

    length = 4
    cache: Any = DynamicCache(config=model.config)
    with torch.no_grad():
        model.base_model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=True, past_key_values=cache)
    token = row = 0
    for layer in cache.layers:
        states = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
        row += sum(_bytes(each) for each in states if each is not None)
        pairs = [getattr(layer, "keys", None), getattr(layer, "values", None)]
        token += sum(_bytes(each) // length for each in pairs if each is not None)
    return token, row


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
