"""What the sampler's rows may look at, for each kind of layer that a model has."""

from typing import Any

import torch
from torch import Tensor

from sgcd.errors import PolicyError

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
MASKED = ("eager", "sdpa")
"""Kernels that take a mask of one's own."""


class Masks:
    """Knows of a model which kinds of layers it has, and how it wants to be told what they may see."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self.window: int | None = getattr(config, "sliding_window", None)
        kinds: list[str] | None = getattr(config, "layer_types", None)
        self._named = kinds is not None
        """Such models are given one mask for each kind of layer; others have one kind, and take a single mask."""
        self.kinds = set(kinds) if kinds else {SLIDING if self.window else FULL}
        strange = self.kinds - {FULL, SLIDING, LINEAR}
        if strange or not hasattr(config, "num_attention_heads"):
            raise PolicyError(
                f"policy: {config.model_type} has layers of {', '.join(sorted(strange)) or 'no attention'}; only full, "
                "sliding and linear attention can be sampled"
            )
        self._dtype: torch.dtype = model.dtype

    @property
    def stateful(self) -> bool:
        """There are layers whose states no mask can hide: rows that go on must not be padded."""
        return LINEAR in self.kinds

    def of(self, positions: Tensor, written: Tensor | None, longest: int) -> Any:
        """`positions` [rows, width] of the queries; `written` is False where a column is padding, None without any."""
        keys = torch.arange(longest, device=positions.device)
        hidden = keys > positions[:, None, :, None]
        made: dict[str, Any] = {}
        if FULL in self.kinds:
            made[FULL] = self._additive(hidden)
        if SLIDING in self.kinds:
            if self.window:
                hidden = hidden | (keys <= positions[:, None, :, None] - self.window)
            made[SLIDING] = self._additive(hidden)
        if LINEAR in self.kinds:
            made[LINEAR] = written
        return made if self._named else next(iter(made.values()))

    def _additive(self, hidden: Tensor) -> Tensor:
        return torch.zeros(hidden.shape, dtype=self._dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
