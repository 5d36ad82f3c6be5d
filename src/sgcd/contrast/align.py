"""Sequences of moves against each other: what they share in order, and where they part."""

from collections.abc import Sequence
from dataclasses import dataclass

Moves = Sequence[str]


@dataclass(frozen=True, slots=True)
class Parting:
    """Where one sequence leaves another: what came before, what was to come, what came instead."""

    after: str
    kept: str
    left: str


def aligned(kept: Moves, other: Moves) -> list[tuple[int, int]]:
    """A longest common subsequence, as pairs of positions; the earliest where several are as long.

    >>> aligned("abcd", "acxd")
    [(0, 0), (2, 1), (3, 3)]
    """
    length = [[0] * (len(other) + 1) for _ in range(len(kept) + 1)]
    for i in reversed(range(len(kept))):
        for j in reversed(range(len(other))):
            both = length[i + 1][j + 1] + 1 if kept[i] == other[j] else 0
            length[i][j] = max(both, length[i + 1][j], length[i][j + 1])
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(kept) and j < len(other):
        if kept[i] == other[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def distance(first: Moves, second: Moves) -> int:
    """Moves that would have to be taken out or put in."""
    return len(first) + len(second) - 2 * len(aligned(first, second))


def middle(sequences: Sequence[Moves]) -> int:
    """Which one is nearest to all others; of several the shortest, then the first."""
    return min(
        range(len(sequences)),
        key=lambda i: (sum(distance(sequences[i], other) for other in sequences), len(sequences[i]), i),
    )


def partings(kept: Moves, other: Moves) -> list[Parting]:
    """Every place where `other` leaves `kept`, in order.

    >>> partings(["find", "check", "cancel"], ["find", "cancel"])
    [Parting(after='find', kept='check', left='cancel')]
    """
    found: list[Parting] = []
    i = j = 0
    for next_i, next_j in [*aligned(kept, other), (len(kept), len(other))]:
        if (i, j) != (next_i, next_j):
            after = kept[i - 1] if i else "nothing"
            found.append(Parting(after, _at(kept, i), _at(other, j)))
        i, j = next_i + 1, next_j + 1
    return found


def _at(moves: Moves, place: int) -> str:
    return moves[place] if place < len(moves) else "nothing"
