"""The conversations of a supervised run: read from its files, encoded for its policy, counted, in batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.errors import DataError, RecipeError
from sgcd.learn.scoring.forward import total_length
from sgcd.learn.settings import SupervisedSettings
from sgcd.learn.supervised.conversations import find_files, read_conversations
from sgcd.learn.supervised.encode import Examples, encode_conversations
from sgcd.learn.supervised.pairs import ReadingPairs, build_pairs, find_rollout_files, read_groups
from sgcd.seeds import derive_seed
from sgcd.storage.manifest import file_checksum

_KEYS = ("data", "dev")
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


@dataclass(frozen=True, slots=True)
class SupervisedData:
    """What is learned from, and what is held out."""

    settings: SupervisedSettings
    data: Examples
    dev: Examples
    reading: ReadingPairs
    checksums: dict[str, str]
    """Of each file."""

    def batch_order(self, seed: int) -> BatchOrder:
        """Of the conversations, whose number decides how many steps there are."""
        return BatchOrder([total_length(one) for one in self.data.rollouts], self.settings.batch_size, seed)

    def pair_order(self, seed: int) -> BatchOrder | None:
        """Of the pairs, which begin anew as often as the conversations need; None without pairs."""
        lengths = [total_length(success) for success, _ in self.reading.pairs]
        return BatchOrder(lengths, self.settings.pairs_in_batch, seed) if lengths else None

    def num_steps(self, seed: int) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.batch_order(seed).steps_per_epoch

    def counts(self) -> dict[str, Any]:
        """Conversations or pairs, tokens to learn, and what was left out, of each key."""
        counts: dict[str, Any] = {
            key: {"conversations": len(part.rollouts), "tokens": part.num_tokens, "left_out": part.left_out}
            for key, part in zip(_KEYS, (self.data, self.dev), strict=True)
        }
        if self.settings.pairs:
            reading = self.reading
            counts["pairs"] = {
                "pairs": len(reading.pairs),
                "groups": reading.num_groups,
                "tokens": sum(one.num_policy_tokens for pair in reading.pairs for one in pair),
                "left_out": reading.left_out,
            }
        return counts

    def describe_left_out(self) -> list[str]:
        """A line for each key and kind."""
        parts = zip(_KEYS, (self.data, self.dev), strict=True)
        lines = [f"supervised.{key}: {line}" for key, part in parts for line in part.describe_left_out()]
        return lines + [
            f"supervised.pairs: mixed groups without a pair, {cause}: {count}"
            for cause, count in self.reading.left_out.items()
        ]


def check_supervised(settings: SupervisedSettings | None) -> SupervisedSettings:
    """Refuse a recipe without conversations, before a policy is loaded."""
    if settings is None:
        raise RecipeError(
            "supervised: missing; say what to learn from, such as supervised.data=[demonstrations.jsonl], files of "
            "JSON lines with messages and tools or folders that sgcd collect has made"
        )
    for key in _KEYS:
        find_files(f"supervised.{key}", getattr(settings, key))
    find_rollout_files(settings.pairs)
    return settings


def load_supervised_data(
    settings: SupervisedSettings, builder: ReferenceBuilder, context_window: int
) -> SupervisedData:
    """Read and encode all files. `builder` writes the references of pairs."""
    window, chat = min(settings.window, context_window), builder.chat
    files = {key: find_files(f"supervised.{key}", getattr(settings, key)) for key in _KEYS}
    data, dev = (_encode_files(f"supervised.{key}", files[key], chat, window) for key in _KEYS)
    reading = asyncio.run(build_pairs(read_groups(settings.pairs, chat.template_hash), builder, window))
    if settings.pairs and not reading.pairs:
        raise DataError(f"supervised.pairs: no pair can be made of {', '.join(settings.pairs)}: {_causes(reading)}")
    read = [file for key in _KEYS for file in files[key]] + find_rollout_files(settings.pairs)
    return SupervisedData(settings, data, dev, reading, {str(file): file_checksum(file) for file in read})


def _causes(reading: ReadingPairs) -> str:
    return ", ".join(f"{cause} ({count})" for cause, count in reading.left_out.items()) or "no siblings differ"


def _encode_files(key: str, files: Sequence[Path], chat: Chat, window: int) -> Examples:
    examples = encode_conversations((line for file in files for line in read_conversations(file)), chat, window)
    if files and not examples.rollouts:
        reasons = "; ".join(examples.describe_left_out()) or "the files are empty"
        raise DataError(f"{key}: no conversation can be learned from: {reasons}")
    return examples
