"""A key-value cache of slots: every row has a length of its own, so turns of different lengths waste no columns."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

STRIDE = 64


class SlotCache(Cache):
    """Keys and values of `slots` rows. The caller says with `aim` where the next forward pass writes and what it reads.

    A row's cells are position by position; what lies beyond a row's end is garbage that no query may attend to. One
    more cell, after all rows, takes what padding writes. Layers of linear attention keep two states for each row
    instead, which no mask can hide: rows begin afresh, or go on without any padding.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(layers=[])
        self.slots = slots
        self.capacity = 0
        self.updates = 0
        """Layers that wrote since `aim`: a model that keeps its memory elsewhere has none."""
        self._stores: dict[int, tuple[Tensor, Tensor]] = {}
        self._states: dict[tuple[str, int], Tensor] = {}
        self._fresh = False
        self._rows: int | Tensor = 0
        self._cells = torch.empty(0, dtype=torch.long)
        self._longest = 0

    def reserve(self, length: int) -> None:
        """Make every row long enough for `length` positions."""
        if length <= self.capacity:
            return
        grown = -(-max(length, self.capacity * 3 // 2) // STRIDE) * STRIDE
        for layer, (keys, values) in self._stores.items():
            self._stores[layer] = self._grow(keys, grown), self._grow(values, grown)
        self.capacity = grown

    @property
    def dump(self) -> int:
        """The cell that padding writes to; nothing ever reads it."""
        return self.slots * self.capacity

    def aim(self, rows: int | Tensor, cells: Tensor, longest: int, fresh: bool = False) -> None:
        """The next pass writes to `cells` and reads `longest` positions of `rows`: the first so many, or these.

        `fresh` rows have no states yet: what was there belonged to others.
        """
        self._rows, self._cells, self._longest, self._fresh = rows, cells, longest, fresh
        self.updates = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of one layer; return the layer's rows up to the longest."""
        self.updates += 1
        if layer_idx not in self._stores:
            self._stores[layer_idx] = self._empty(key_states), self._empty(value_states)
        keys, values = self._stores[layer_idx]
        return self._put(keys, key_states), self._put(values, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._longest

    # -- layers of linear attention, in the words of transformers ------------------------------------------------------

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self._state("conv", layer_idx)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self._state("recurrent", layer_idx)

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return not self._fresh

    def is_recording_past(self, layer_idx: int) -> bool:
        """A single token's pass writes to the state it was given, which is ours only where rows are read in place."""
        return not isinstance(self._rows, int)

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Tensor:
        """Keep the newest columns, as many as the kernel reads; return those before and the new ones."""
        width: int = kwargs.get("conv_kernel_size", conv_states.shape[-1])
        before = self._state("conv", layer_idx)
        if before is None:
            missing = max(0, width - conv_states.shape[-1])
            whole = torch.nn.functional.pad(conv_states, (missing, 0))
        else:
            whole = torch.cat([before, conv_states], dim=-1)
        self._keep("conv", layer_idx, whole[..., -width:])
        return whole

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        self.updates += 1
        self._keep("recurrent", layer_idx, recurrent_states)
        return recurrent_states

    def _state(self, kind: str, layer: int) -> Tensor | None:
        """Of the rows that are aimed at; a view of the first so many, which may be written to."""
        if self._fresh:
            return None
        states = self._states[kind, layer]
        return states[: self._rows] if isinstance(self._rows, int) else states[self._rows]

    def _keep(self, kind: str, layer: int, states: Tensor) -> None:
        if (kind, layer) not in self._states:
            self._states[kind, layer] = states.new_zeros(self.slots, *states.shape[1:])
        kept = self._states[kind, layer]
        if isinstance(self._rows, int):
            kept[: self._rows] = states
        else:
            kept[self._rows] = states

    # -- rows change places -------------------------------------------------------------------------------------------

    def swap(self, here: list[int], there: list[int], length: int) -> None:
        """Exchange rows pairwise, `length` positions of each."""
        a, b = torch.tensor(here), torch.tensor(there)
        for view in self._views(length):
            a, b = a.to(view.device), b.to(view.device)
            kept = view[a]
            view[a] = view[b]
            view[b] = kept

    def copy(self, source: list[int], target: list[int], length: int) -> None:
        """Copy rows pairwise, `length` positions of each."""
        for view in self._views(length):
            view[torch.tensor(target)] = view[torch.tensor(source)]

    def _views(self, length: int) -> list[Tensor]:
        """All that belongs to rows: their first positions, and their states."""
        kept = [self._view(store)[:, :length] for layer in self._stores.values() for store in layer]
        return [*kept, *self._states.values()]

    def _view(self, store: Tensor) -> Tensor:
        return store[: self.dump].view(self.slots, self.capacity, *store.shape[1:])

    def _empty(self, states: Tensor) -> Tensor:
        # Zeros, not whatever was in memory: a weight of zero times NaN is NaN.
        return states.new_zeros(self.dump + 1, states.shape[1], states.shape[3])

    def _grow(self, store: Tensor, capacity: int) -> Tensor:
        grown = store.new_zeros(self.slots * capacity + 1, *store.shape[1:])
        rows = grown[:-1].view(self.slots, capacity, *store.shape[1:])
        rows[:, : self.capacity] = self._view(store)
        return grown

    def _put(self, store: Tensor, states: Tensor) -> Tensor:
        store.index_copy_(0, self._cells, states.transpose(1, 2).flatten(0, 1))
        view = self._view(store)
        rows = view[: self._rows, : self._longest] if isinstance(self._rows, int) else view[self._rows, : self._longest]
        return rows.transpose(1, 2)
