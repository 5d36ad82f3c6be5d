"""Aligns sequences and finds where one parts from another: calls, words or anything that can be compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Parting:
    """A place where one sequence parts from another: the half-open span of either that the other does not have."""

    own: range
    other: range
    is_pair: bool = False
    """Whether it is one item against a similar one that it is aligned with, such as a call with another argument."""


def align_sequences(
    own: Sequence[Item], other: Sequence[Item], similarity: Callable[[Item, Item], int]
) -> list[tuple[int, int]]:
    """The pairs of indices, in order, whose similarities have the greatest sum; the earliest of several.

    Items without similarity (zero) are never paired.
    """
    if similarity is is_equal:
        return _align_equal(own, other)
    similarities = [[similarity(first, second) for second in other] for first in own]
    sums = _best_sums(similarities, len(other))
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(own) and j < len(other):
        if similarities[i][j] and sums[i][j] == sums[i + 1][j + 1] + similarities[i][j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif sums[i + 1][j] >= sums[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def total_similarity(own: Sequence[Item], other: Sequence[Item], similarity: Callable[[Item, Item], int]) -> int:
    """The sum of the similarities of aligned items."""
    return _best_sums([[similarity(first, second) for second in other] for first in own], len(other))[0][0]


def find_partings(own: Sequence[Item], other: Sequence[Item], similarity: Callable[[Item, Item], int]) -> list[Parting]:
    """Each place where `own` parts from `other`, in order: items of either side alone, and similar ones that differ.

    >>> find_partings("take two now".split(), "take all of it now".split(), is_equal)
    [Parting(own=range(1, 2), other=range(1, 4), is_pair=False)]
    """
    partings: list[Parting] = []
    i = j = 0
    for next_i, next_j in [*align_sequences(own, other, similarity), (len(own), len(other))]:
        if (i, j) != (next_i, next_j):
            partings.append(Parting(range(i, next_i), range(j, next_j)))
        if next_i < len(own) and next_j < len(other) and own[next_i] != other[next_j]:
            partings.append(Parting(range(next_i, next_i + 1), range(next_j, next_j + 1), is_pair=True))
        i, j = next_i + 1, next_j + 1
    return partings


def is_equal(first: object, second: object) -> int:
    """The similarity of items that are either equal or not, and hashable: long sequences of them align fast."""
    return int(first == second)


def _align_equal(own: Sequence[Item], other: Sequence[Item]) -> list[tuple[int, int]]:
    """`align_sequences` of equal items, a row of sums as the bits of one integer (Hyyrö, 2004).

    Bit n - 1 - j of `rows[i]` is set where the sum from i and j on is greater than that from i and j + 1 on.
    """
    size, places = len(other), dict[Item, int]()
    for j, item in enumerate(other):
        places[item] = places.get(item, 0) | 1 << (size - 1 - j)
    every_bit = (1 << size) - 1
    equal_sums, rows = every_bit, [0] * (len(own) + 1)
    for i in reversed(range(len(own))):
        matches = equal_sums & places.get(own[i], 0)
        equal_sums = ((equal_sums + matches) | (equal_sums - matches)) & every_bit
        rows[i] = ~equal_sums & every_bit

    def sum_from(i: int, j: int) -> int:
        return (rows[i] & ((1 << (size - j)) - 1)).bit_count()

    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(own) and j < size:
        if own[i] == other[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif sum_from(i + 1, j) >= sum_from(i, j + 1):
            i += 1
        else:
            j += 1
    return pairs


def _best_sums(similarities: Sequence[Sequence[int]], num_other: int) -> list[list[int]]:
    """`sums[i][j]` is the greatest sum from the items after i and j on."""
    sums = [[0] * (num_other + 1) for _ in range(len(similarities) + 1)]
    for i in reversed(range(len(similarities))):
        for j in reversed(range(num_other)):
            sums[i][j] = max(sums[i + 1][j + 1] + similarities[i][j], sums[i + 1][j], sums[i][j + 1])
    return sums
