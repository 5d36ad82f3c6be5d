"""The distinct prefixes of some rollouts as one row: what siblings have in common, token by token, is there once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sgcd.records import TokenIds

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """The tokens of a tree in depth-first order. Token k is seen by the tokens k to ends[k] - 1, and by no others."""

    token_ids: Indices
    positions: Indices
    """Of each token in its own sequence."""
    ends: Indices
    """Where the subtree of each token ends."""
    places: list[Indices]
    """For each sequence, where its tokens stand in the row."""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.positions.max()) + 1

    def nodes(self) -> list[tuple[int, int, int]]:
        """Start, stop and end of each node: tokens start to stop - 1 follow each other without a branch between them,
        and are seen by the tokens up to end - 1."""
        starts = np.flatnonzero(np.diff(self.ends, prepend=-1))
        stops = np.append(starts[1:], self.num_tokens)
        return [(int(start), int(stop), int(self.ends[start])) for start, stop in zip(starts, stops, strict=True)]

    def path(self, token: int) -> Indices:
        """The tokens that a token sees, itself included."""
        return np.flatnonzero(self.ends[: token + 1] > token)


def build_prefix_tree(sequences: Sequence[TokenIds]) -> PrefixTree:
    """The tree of some sequences, none of them empty; it depends on their order only in `places`."""
    order = sort_by_prefix(sequences)
    num_tokens = count_tree_tokens([sequences[index] for index in order])
    token_ids, positions, ends = (np.zeros(num_tokens, np.int64) for _ in range(3))
    places: dict[int, Indices] = {}
    path, previous, size = np.zeros(0, np.int64), np.zeros(0, np.int32), 0
    for index in order:
        sequence = sequences[index]
        shared = count_shared_tokens(previous, sequence)
        ends[path[shared:]] = size  # their subtrees have all their tokens
        new = np.arange(size, size + len(sequence) - shared)
        token_ids[new], positions[new] = sequence[shared:], np.arange(shared, len(sequence))
        places[index] = path = np.concatenate([path[:shared], new])
        previous, size = sequence, size + len(new)
    ends[path] = size
    return PrefixTree(token_ids, positions, ends, [places[index] for index in range(len(sequences))])


def sort_by_prefix(sequences: Sequence[TokenIds]) -> list[int]:
    """Indices in the order of a dictionary, in which common prefixes stand next to each other."""
    return sorted(range(len(sequences)), key=lambda index: np.asarray(sequences[index], ">u4").tobytes())


def count_shared_tokens(first: TokenIds, second: TokenIds) -> int:
    """Tokens of the common prefix."""
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size


def count_tree_tokens(sorted_sequences: Sequence[TokenIds]) -> int:
    """Tokens of the tree of sequences that are sorted by prefix."""
    num_shared = sum(count_shared_tokens(*pair) for pair in pairwise(sorted_sequences))
    return sum(map(len, sorted_sequences)) - num_shared


def split_by_prefix(sequences: Sequence[TokenIds], max_tokens: int) -> list[list[int]]:
    """Indices of parts whose trees have at most `max_tokens` tokens; neighbours by prefix stay together."""
    parts: list[list[int]] = []
    num_tokens = 0
    for index in sort_by_prefix(sequences):
        sequence = sequences[index]
        num_new = len(sequence) - (count_shared_tokens(sequences[parts[-1][-1]], sequence) if parts else 0)
        if parts and num_tokens + num_new <= max_tokens:
            parts[-1].append(index)
            num_tokens += num_new
        else:
            parts.append([index])
            num_tokens = len(sequence)
    return parts
