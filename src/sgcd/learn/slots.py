"""A key-value cache of slots: every row has a length of its own, so turns of different lengths waste no columns."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

STRIDE = 64


class SlotCache(Cache):
    """Keys and values of `slots` rows. The caller says with `aim` where the next forward pass writes and what it reads.

    A row's cells are position by position; what lies beyond a row's end is garbage that no query may attend to. One
    more cell, after all rows, takes what padding writes.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(layers=[])
        self.slots = slots
        self.capacity = 0
        self.updates = 0
        """Calls of `update` since `aim`: a model that keeps its memory elsewhere makes none."""
        self._stores: list[tuple[Tensor, Tensor]] = []
        self._rows: int | Tensor = 0
        self._cells = torch.empty(0, dtype=torch.long)
        self._longest = 0

    def reserve(self, length: int) -> None:
        """Make every row long enough for `length` positions."""
        if length <= self.capacity:
            return
        grown = -(-max(length, self.capacity * 3 // 2) // STRIDE) * STRIDE
        for i in range(len(self._stores)):
            self._stores[i] = self._grow(self._stores[i][0], grown), self._grow(self._stores[i][1], grown)
        self.capacity = grown

    @property
    def dump(self) -> int:
        """The cell that padding writes to; nothing ever reads it."""
        return self.slots * self.capacity

    def aim(self, rows: int | Tensor, cells: Tensor, longest: int) -> None:
        """The next pass writes to `cells` and reads `longest` positions of `rows`: the first so many, or these."""
        self._rows, self._cells, self._longest = rows, cells, longest
        self.updates = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of one layer; return the layer's rows up to the longest."""
        self.updates += 1
        if layer_idx == len(self._stores):
            self._stores.append((self._empty(key_states), self._empty(value_states)))
        keys, values = self._stores[layer_idx]
        return self._put(keys, key_states), self._put(values, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._longest

    def swap(self, here: list[int], there: list[int], length: int) -> None:
        """Exchange rows pairwise, `length` positions of each."""
        a, b = torch.tensor(here), torch.tensor(there)
        for view in self._views():
            a, b = a.to(view.device), b.to(view.device)
            kept = view[a, :length]
            view[a, :length] = view[b, :length]
            view[b, :length] = kept

    def copy(self, source: list[int], target: list[int], length: int) -> None:
        """Copy rows pairwise, `length` positions of each."""
        for view in self._views():
            view[torch.tensor(target), :length] = view[torch.tensor(source), :length]

    def _views(self) -> list[Tensor]:
        return [self._view(store) for layer in self._stores for store in layer]

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
