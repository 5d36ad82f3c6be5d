"""Rollouts as padded micro-batches under a token budget, in an order that is a function of the rollouts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sgcd.records import Floats, Rollout, same_length


@dataclass(frozen=True, slots=True)
class Example:
    """One rollout as the loss sees it; every array has one entry for each token of the response."""

    rollout: Rollout
    advantage: Floats
    old_logp: Floats
    initial_logp: Floats | None = None

    def __post_init__(self) -> None:
        for name in ("advantage", "old_logp", "initial_logp"):
            array = getattr(self, name)
            if array is not None:
                same_length(f"example {self.rollout.name}", name, array, len(self.rollout.response))


@dataclass(frozen=True, slots=True)
class Grid:
    """Rollouts padded on the right to one length: the causal model never sees padding from a real token."""

    ids: Tensor
    """[rows, length]: prompt, then response, then padding."""
    mask: Tensor
    """[rows, length - 1]: True at column t where the policy wrote token t + 1."""


def cut(rollouts: Sequence[Rollout], tokens: int) -> list[list[int]]:
    """Indices of the rollouts of each micro-batch: sorted by length, then filled up to `tokens` padded tokens."""

    def key(index: int) -> tuple[int, str, int]:
        rollout = rollouts[index]
        return (length_of(rollout), rollout.task, rollout.sibling)

    parts: list[list[int]] = []
    for index in sorted(range(len(rollouts)), key=key):
        # Sorted by length, so the newest rollout is the longest and sets the width.
        if parts and (len(parts[-1]) + 1) * length_of(rollouts[index]) <= tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def length_of(rollout: Rollout) -> int:
    return len(rollout.prompt) + len(rollout.response)


def grid(rollouts: Sequence[Rollout]) -> Grid:
    width = max(length_of(rollout) for rollout in rollouts)
    ids = np.zeros((len(rollouts), width), np.int64)
    for row, rollout in enumerate(rollouts):
        ids[row, : length_of(rollout)] = np.concatenate([rollout.prompt, rollout.response])
    mask = np.zeros((len(rollouts), width - 1), np.bool_)
    for row, rollout in enumerate(rollouts):
        start = len(rollout.prompt) - 1
        mask[row, start : start + len(rollout.mask)] = rollout.mask
    return Grid(torch.from_numpy(ids), torch.from_numpy(mask))


def flat(arrays: Sequence[Floats], rollouts: Sequence[Rollout]) -> Tensor:
    """Arrays over responses as one row of written tokens, in the order in which `written` scores a grid."""
    parts = [array[rollout.mask] for array, rollout in zip(arrays, rollouts, strict=True)]
    return torch.from_numpy(np.concatenate(parts))


def unflat(numbers: Tensor, rollouts: Sequence[Rollout]) -> list[Floats]:
    """The way back from `flat`: an array over each response, zero where the policy wrote nothing."""
    parts = numbers.float().cpu().split([rollout.written for rollout in rollouts])
    laid = [np.zeros(len(rollout.response), np.float32) for rollout in rollouts]
    for array, rollout, part in zip(laid, rollouts, parts, strict=True):
        array[rollout.mask] = part.numpy()
    return laid
