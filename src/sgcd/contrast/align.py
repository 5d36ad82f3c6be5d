"""Aligns sequences of moves: longest common subsequence, edit distance, medoid and deviations."""

from collections.abc import Sequence
from dataclasses import dataclass

Moves = Sequence[str]


@dataclass(frozen=True, slots=True)
class Deviation:
    """A point where one sequence leaves another: the move before it, the expected and the actual next move."""

    after: str
    expected: str
    actual: str


def longest_common_subsequence(reference_moves: Moves, other_moves: Moves) -> list[tuple[int, int]]:
    """A longest common subsequence as pairs of indices; the earliest of several.

    >>> longest_common_subsequence("abcd", "acxd")
    [(0, 0), (2, 1), (3, 3)]
    """
    lengths = [[0] * (len(other_moves) + 1) for _ in range(len(reference_moves) + 1)]
    for i in reversed(range(len(reference_moves))):
        for j in reversed(range(len(other_moves))):
            matched = lengths[i + 1][j + 1] + 1 if reference_moves[i] == other_moves[j] else 0
            lengths[i][j] = max(matched, lengths[i + 1][j], lengths[i][j + 1])
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(reference_moves) and j < len(other_moves):
        if reference_moves[i] == other_moves[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def edit_distance(first: Moves, second: Moves) -> int:
    """The number of moves to delete or insert."""
    return len(first) + len(second) - 2 * len(longest_common_subsequence(first, second))


def medoid_index(sequences: Sequence[Moves]) -> int:
    """The index of the sequence that is nearest to all others; of several, the shortest, then the first."""
    return min(
        range(len(sequences)),
        key=lambda i: (
            sum(edit_distance(sequences[i], other_moves) for other_moves in sequences),
            len(sequences[i]),
            i,
        ),
    )


def find_deviations(expected: Moves, actual: Moves) -> list[Deviation]:
    """Each point where `actual` leaves `expected`, in order.

    >>> find_deviations(["find", "check", "cancel"], ["find", "cancel"])
    [Deviation(after='find', expected='check', actual='cancel')]
    """
    deviations: list[Deviation] = []
    i = j = 0
    for next_i, next_j in [*longest_common_subsequence(expected, actual), (len(expected), len(actual))]:
        if (i, j) != (next_i, next_j):
            after = expected[i - 1] if i else "nothing"
            deviations.append(Deviation(after, _move_at(expected, i), _move_at(actual, j)))
        i, j = next_i + 1, next_j + 1
    return deviations


def _move_at(moves: Moves, index: int) -> str:
    return moves[index] if index < len(moves) else "nothing"
