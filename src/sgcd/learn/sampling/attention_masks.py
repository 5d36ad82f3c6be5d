"""Builds the attention masks of the sampler, for each type of layer of a model."""

from typing import Any

import torch
from torch import Tensor

from sgcd.errors import PolicyError

_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
MASKED_ATTENTION = ("eager", "sdpa")
"""Attention implementations that take a custom mask."""


class AttentionMasks:
    """The attention masks of one model, in the form that it takes."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        layer_types: list[str] | None = getattr(config, "layer_types", None)
        self._one_per_type = layer_types is not None
        """Whether the model takes a dict with one mask per type of layer, or has one type and takes a single mask."""
        self.layer_types = set(layer_types) if layer_types else {_SLIDING if self.sliding_window else _FULL}
        unsupported = self.layer_types - {_FULL, _SLIDING, _LINEAR}
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
        key_positions = torch.arange(max_length, device=positions.device)
        masked = key_positions > positions[:, None, :, None]
        masks: dict[str, Any] = {}
        if _FULL in self.layer_types:
            masks[_FULL] = self._to_additive(masked)
        if _SLIDING in self.layer_types:
            if self.sliding_window:
                masked = masked | (key_positions <= positions[:, None, :, None] - self.sliding_window)
            masks[_SLIDING] = self._to_additive(masked)
        if _LINEAR in self.layer_types:
            masks[_LINEAR] = token_mask
        return masks if self._one_per_type else next(iter(masks.values()))

    def _to_additive(self, masked: Tensor) -> Tensor:
        return torch.zeros(masked.shape, dtype=self._dtype, device=masked.device).masked_fill_(masked, -torch.inf)
