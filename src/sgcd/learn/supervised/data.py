"""The conversations of a supervised run: read from its files, encoded for its policy, counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgcd.chat import Chat
from sgcd.errors import DataError, RecipeError
from sgcd.learn.settings import SupervisedSettings
from sgcd.learn.supervised.batches import BatchOrder
from sgcd.learn.supervised.conversations import find_files, read_conversations
from sgcd.learn.supervised.encode import Examples, encode_conversations
from sgcd.storage.manifest import file_checksum

_KEYS = ("data", "dev")


@dataclass(frozen=True, slots=True)
class SupervisedData:
    """What is learned from, and what is held out."""

    settings: SupervisedSettings
    data: Examples
    dev: Examples
    checksums: dict[str, str]
    """Of each file."""

    def batch_order(self, seed: int) -> BatchOrder:
        lengths = [len(rollout.prompt) + len(rollout.response) for rollout in self.data.rollouts]
        return BatchOrder(lengths, self.settings.batch_size, seed)

    def num_steps(self, seed: int) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.batch_order(seed).steps_per_epoch

    def counts(self) -> dict[str, Any]:
        """Conversations, tokens to learn, and what was left out, of each key."""
        return {
            key: {"conversations": len(part.rollouts), "tokens": part.num_tokens, "left_out": part.left_out}
            for key, part in zip(_KEYS, (self.data, self.dev), strict=True)
        }

    def describe_left_out(self) -> list[str]:
        """A line for each key and kind."""
        parts = zip(_KEYS, (self.data, self.dev), strict=True)
        return [f"supervised.{key}: {line}" for key, part in parts for line in part.describe_left_out()]


def check_supervised(settings: SupervisedSettings | None) -> SupervisedSettings:
    """Refuse a recipe without conversations, before a policy is loaded."""
    if settings is None:
        raise RecipeError(
            "supervised: missing; say what to learn from, such as supervised.data=[demonstrations.jsonl], files of "
            "JSON lines with messages and tools or folders that sgcd collect has made"
        )
    for key in _KEYS:
        find_files(f"supervised.{key}", getattr(settings, key))
    return settings


def load_supervised_data(settings: SupervisedSettings, chat: Chat, context_window: int) -> SupervisedData:
    """Read and encode all files."""
    window = min(settings.window, context_window)
    files = {key: find_files(f"supervised.{key}", getattr(settings, key)) for key in _KEYS}
    data, dev = (_encode_files(f"supervised.{key}", files[key], chat, window) for key in _KEYS)
    checksums = {str(file): file_checksum(file) for key in _KEYS for file in files[key]}
    return SupervisedData(settings, data, dev, checksums)


def _encode_files(key: str, files: Sequence[Path], chat: Chat, window: int) -> Examples:
    examples = encode_conversations((line for file in files for line in read_conversations(file)), chat, window)
    if files and not examples.rollouts:
        reasons = "; ".join(examples.describe_left_out()) or "the files are empty"
        raise DataError(f"{key}: no conversation can be learned from: {reasons}")
    return examples
