"""The sampler's KV cache, whose rows have lengths of their own."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

_CAPACITY_STRIDE = 64


class SlotCache(Cache):
    """Keys and values of `num_slots` rows. `set_target` sets which cells the next forward pass writes and reads.

    A row has one cell per position; cells beyond its end hold garbage, which the masks must hide. One more cell, after
    all rows, takes the writes of padding. Layers of linear attention keep two states per row instead. No mask can hide
    these, so rows start fresh or continue without padding.
    """

    def __init__(self, num_slots: int) -> None:
        super().__init__(layers=[])
        self.num_slots = num_slots
        self.capacity = 0
        self.num_layer_updates = 0
        """Layers that wrote since `set_target`; zero for a model that keeps its memory elsewhere."""
        self._stores: dict[int, tuple[Tensor, Tensor]] = {}
        self._states: dict[tuple[str, int], Tensor] = {}
        self._is_fresh = False
        self._rows: int | Tensor = 0
        self._cells = torch.empty(0, dtype=torch.long)
        self._max_length = 0

    def reserve(self, length: int) -> None:
        """Make every row long enough for `length` positions."""
        if length <= self.capacity:
            return
        new_capacity = -(-max(length, self.capacity * 3 // 2) // _CAPACITY_STRIDE) * _CAPACITY_STRIDE
        for layer, (keys, values) in self._stores.items():
            self._stores[layer] = self._grow_store(keys, new_capacity), self._grow_store(values, new_capacity)
        self.capacity = new_capacity

    @property
    def padding_cell(self) -> int:
        """The cell that padding writes to; it is never read."""
        return self.num_slots * self.capacity

    def set_target(self, rows: int | Tensor, cells: Tensor, max_length: int, *, is_fresh: bool = False) -> None:
        """Sets what the next forward pass writes and reads.

        It writes to `cells` and reads positions 0 to max_length - 1 of `rows`: an int n means rows 0 to n - 1, a tensor
        lists rows. `is_fresh`: these rows have no linear-attention state yet.
        """
        self._rows, self._cells, self._max_length, self._is_fresh = rows, cells, max_length, is_fresh
        self.num_layer_updates = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of one layer; return its target rows up to the longest."""
        self.num_layer_updates += 1
        if layer_idx not in self._stores:
            self._stores[layer_idx] = self._new_store(key_states), self._new_store(value_states)
        keys, values = self._stores[layer_idx]
        return self._write_store(keys, key_states), self._write_store(values, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._max_length

    # -- layers of linear attention, under the names of transformers ---------------------------------------------------

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self._get_state("conv", layer_idx)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self._get_state("recurrent", layer_idx)

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return not self._is_fresh

    def is_recording_past(self, layer_idx: int) -> bool:
        """False when the target is the first n rows: states are then views, which a pass of one token may overwrite."""
        return not isinstance(self._rows, int)

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Tensor:
        """Keep as many of the newest columns as the kernel reads; return the earlier and the new columns."""
        width: int = kwargs.get("conv_kernel_size", conv_states.shape[-1])
        previous = self._get_state("conv", layer_idx)
        if previous is None:
            num_missing = max(0, width - conv_states.shape[-1])
            columns = torch.nn.functional.pad(conv_states, (num_missing, 0))
        else:
            columns = torch.cat([previous, conv_states], dim=-1)
        self._set_state("conv", layer_idx, columns[..., -width:])
        return columns

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        self.num_layer_updates += 1
        self._set_state("recurrent", layer_idx, recurrent_states)
        return recurrent_states

    def _get_state(self, kind: str, layer: int) -> Tensor | None:
        """States of the target rows; a writable view if these are the first rows."""
        if self._is_fresh:
            return None
        states = self._states[kind, layer]
        return states[: self._rows] if isinstance(self._rows, int) else states[self._rows]

    def _set_state(self, kind: str, layer: int, states: Tensor) -> None:
        if (kind, layer) not in self._states:
            self._states[kind, layer] = states.new_zeros(self.num_slots, *states.shape[1:])
        stored = self._states[kind, layer]
        if isinstance(self._rows, int):
            stored[: self._rows] = states
        else:
            stored[self._rows] = states

    # -- moving rows --------------------------------------------------------------------------------------------------

    def swap_rows(self, first_rows: list[int], second_rows: list[int], length: int) -> None:
        """Swap rows pairwise, up to `length` positions."""
        first, second = torch.tensor(first_rows), torch.tensor(second_rows)
        for view in self._row_views(length):
            first, second = first.to(view.device), second.to(view.device)
            saved = view[first]
            view[first] = view[second]
            view[second] = saved

    def copy_rows(self, source_rows: list[int], target_rows: list[int], length: int) -> None:
        """Copy rows pairwise, up to `length` positions."""
        for view in self._row_views(length):
            view[torch.tensor(target_rows)] = view[torch.tensor(source_rows)]

    def _row_views(self, length: int) -> list[Tensor]:
        """Views of all tensors with one entry per row: cells up to `length`, and states."""
        kv_views = [self._as_rows(store)[:, :length] for layer in self._stores.values() for store in layer]
        return [*kv_views, *self._states.values()]

    def _as_rows(self, store: Tensor) -> Tensor:
        return store[: self.padding_cell].view(self.num_slots, self.capacity, *store.shape[1:])

    def _new_store(self, states: Tensor) -> Tensor:
        # Zeros, not whatever was in memory: a weight of zero times NaN is NaN.
        return states.new_zeros(self.padding_cell + 1, states.shape[1], states.shape[3])

    def _grow_store(self, store: Tensor, capacity: int) -> Tensor:
        new_store = store.new_zeros(self.num_slots * capacity + 1, *store.shape[1:])
        rows = new_store[:-1].view(self.num_slots, capacity, *store.shape[1:])
        rows[:, : self.capacity] = self._as_rows(store)
        return new_store

    def _write_store(self, store: Tensor, states: Tensor) -> Tensor:
        store.index_copy_(0, self._cells, states.transpose(1, 2).flatten(0, 1))
        view = self._as_rows(store)
        rows = (
            view[: self._rows, : self._max_length]
            if isinstance(self._rows, int)
            else view[self._rows, : self._max_length]
        )
        return rows.transpose(1, 2)
