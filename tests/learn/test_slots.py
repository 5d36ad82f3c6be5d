"""The slot cache: rows of their own lengths in one block, grown and exchanged without loss."""

import torch
from torch import Tensor

from sgcd.learn.sampling.kv_cache import SlotCache

HEADS, SIZE = 2, 3


def states(rows: int, width: int, start: float) -> Tensor:
    """Keys that say who they are: start + 10 * row + column."""
    told = start + 10.0 * torch.arange(rows)[:, None] + torch.arange(width)[None, :]
    return told[:, None, :, None].expand(rows, HEADS, width, SIZE).contiguous()


def read(cache: SlotCache, rows: int | Tensor, longest: int) -> Tensor:
    """What a pass would see, one number for each row and position; its own write goes to the dump."""
    count = rows if isinstance(rows, int) else len(rows)
    cache.set_target(rows, torch.full((count,), cache.padding_cell), longest)
    keys, values = cache.update(states(count, 1, -1.0), states(count, 1, -2.0), 0)
    assert torch.equal(keys, -values)
    return keys[:, 0, :, 0]


def filled() -> SlotCache:
    """Three rows; row 0 holds 100 101 102, row 2 holds 110 with padding before it."""
    cache = SlotCache(3)
    cache.reserve(3)
    c = cache.capacity
    cache.set_target(torch.tensor([0, 2]), torch.tensor([0, 1, 2, cache.padding_cell, cache.padding_cell, 2 * c]), 3)
    keys = states(2, 3, 100.0)
    seen, _ = cache.update(keys, -keys, 0)
    assert seen.shape == (2, HEADS, 3, SIZE)
    assert seen[:, 1, :, 2].tolist() == [[100, 101, 102], [112, 0, 0]]
    return cache


def test_padding_goes_nowhere() -> None:
    cache = filled()
    assert read(cache, 3, 3).tolist() == [[100, 101, 102], [0, 0, 0], [112, 0, 0]]
    assert read(cache, torch.tensor([2, 0]), 2).tolist() == [[112, 0], [100, 101]]


def test_growing_keeps_every_row() -> None:
    cache = filled()
    before = cache.capacity
    cache.reserve(before)
    assert cache.capacity == before
    cache.reserve(before + 1)
    assert cache.capacity > before
    assert read(cache, 3, before + 1)[:, :4].tolist() == [[100, 101, 102, 0], [0, 0, 0, 0], [112, 0, 0, 0]]
    assert not read(cache, 3, before + 1)[:, 4:].any()


def test_rows_change_places() -> None:
    cache = filled()
    cache.swap_rows([0], [1], 3)
    assert read(cache, 3, 3).tolist() == [[0, 0, 0], [100, 101, 102], [112, 0, 0]]
    cache.copy_rows([1], [0], 2)
    assert read(cache, 3, 3).tolist() == [[100, 101, 0], [100, 101, 102], [112, 0, 0]]
