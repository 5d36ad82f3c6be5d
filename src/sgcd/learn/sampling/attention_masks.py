"""What the sampler's rows may look at, for each kind of layer that a model has."""

from typing import Any

import torch
from torch import Tensor

from sgcd.errors import PolicyError

_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
MASKED_ATTENTION = ("eager", "sdpa")
"""Kernels that take a mask of one's own."""


class AttentionMasks:
    """Knows of a model which kinds of layers it has, and how it wants to be told what they may see."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        layer_types: list[str] | None = getattr(config, "layer_types", None)
        self._one_per_type = layer_types is not None
        """Such models are given one mask for each kind of layer; others have one kind, and take a single mask."""
        self.layer_types = set(layer_types) if layer_types else {_SLIDING if self.sliding_window else _FULL}
        unsupported = self.layer_types - {_FULL, _SLIDING, _LINEAR}
        if unsupported or not hasattr(config, "num_attention_heads"):
            raise PolicyError(
                f"policy: {config.model_type} has layers of {', '.join(sorted(unsupported)) or 'no attention'}; only "
                "full, "
                "sliding and linear attention can be sampled"
            )
        self._dtype: torch.dtype = model.dtype

    @property
    def is_stateful(self) -> bool:
        """There are layers whose states no mask can hide: rows that go on must not be padded."""
        return _LINEAR in self.layer_types

    def build(self, positions: Tensor, token_mask: Tensor | None, max_length: int) -> Any:
        """`positions` [rows, width] of the queries; `written` is False where a column is padding, None without any."""
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
