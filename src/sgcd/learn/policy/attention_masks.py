"""The attention masks that a model takes, one for each type of its layers."""

from typing import Any

import torch
from torch import Tensor

from sgcd.errors import PolicyError

FULL, SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
TREE_ATTENTION = "prefix_tree"
"""`sdpa` that also reads rows which are trees (scoring/tree_attention.py)."""
MASKED_ATTENTION = ("eager", "sdpa", TREE_ATTENTION)
"""Attention implementations that take a custom mask."""


class AttentionMasks:
    """The attention masks of one model, in the form that it takes."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        layer_types: list[str] | None = getattr(config, "layer_types", None)
        self._one_per_type = layer_types is not None
        """Whether the model takes a dict with one mask per type of layer, or has one type and takes a single mask."""
        self.layer_types = set(layer_types) if layer_types else {SLIDING if self.sliding_window else FULL}
        unsupported = self.layer_types - {FULL, SLIDING, _LINEAR}
        if unsupported or not hasattr(config, "num_attention_heads"):
            raise PolicyError(
                f"policy: {config.model_type} has layers of {', '.join(sorted(unsupported)) or 'no attention'}; only "
                "full, sliding and linear attention can be sampled"
            )
        self._dtype: torch.dtype = model.dtype

    @property
    def is_stateful(self) -> bool:
        """Whether layers keep states that no mask can hide: continued rows must then not be padded."""
        return _LINEAR in self.layer_types

    def build(self, positions: Tensor, token_mask: Tensor | None, max_length: int) -> Any:
        """Masks for queries at `positions` [rows, width]; `token_mask` is False at padding, None without padding."""
        distance = positions[:, None, :, None] - torch.arange(max_length, device=positions.device)
        masks: dict[str, Any] = {}
        for layer_type in (FULL, SLIDING):
            if layer_type in self.layer_types:
                window = self.window_of(layer_type)
                masks[layer_type] = self.to_additive((distance < 0) | (distance >= window) if window else distance < 0)
        if _LINEAR in self.layer_types:
            masks[_LINEAR] = token_mask
        return self.in_form(masks)

    def window_of(self, layer_type: str) -> int | None:
        """How many positions a layer of this type sees; None for all."""
        return self.sliding_window if layer_type == SLIDING else None

    def in_form(self, masks: dict[str, Any]) -> Any:
        """Masks by type of layer, as the model takes them."""
        return masks if self._one_per_type else next(iter(masks.values()))

    def to_additive(self, masked: Tensor) -> Tensor:
        """Zero, and minus infinity where it is masked."""
        return torch.zeros(masked.shape, dtype=self._dtype, device=masked.device).masked_fill_(masked, -torch.inf)
