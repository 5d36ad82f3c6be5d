"""The batches of an epoch: every conversation once, those of similar length together, in an order by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from sgcd.seeds import derive_seed

_POOL_BATCHES = 16
"""Batches that are sorted together: more of them have less padding, and conversations meet more often."""


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Which conversations each step learns from; it depends on lengths and seed alone."""

    lengths: Sequence[int]
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return ceil(len(self.lengths) / self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step, both counted from one."""
        return (step - 1) // self.steps_per_epoch + 1

    def batch(self, step: int) -> list[int]:
        """The indices of the conversations of a step, counted from one."""
        return self.epoch_batches(self.epoch_of(step))[(step - 1) % self.steps_per_epoch]

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch: pools of shuffled conversations are sorted by length, then cut and shuffled."""
        rng = np.random.Generator(np.random.Philox(key=derive_seed(self.seed, "supervised", epoch)))
        order: list[int] = rng.permutation(len(self.lengths)).tolist()
        pool_size = _POOL_BATCHES * self.batch_size
        in_buckets = [
            index
            for start in range(0, len(order), pool_size)
            for index in sorted(order[start : start + pool_size], key=lambda index: self.lengths[index])
        ]
        batches = [in_buckets[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [batches[index] for index in rng.permutation(len(batches))]
