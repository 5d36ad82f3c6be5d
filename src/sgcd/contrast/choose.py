"""Which siblings a writer reads when they do not all fit: both classes, evenly, under a budget of tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sgcd.contrast.trace import Trace, render, shortened, without_middle

OBSERVATION = (4000, 1000, 300)
"""Characters that stay of an observation, tried one after the other once a single pair does not fit."""
TURNS = 2
"""Turns that stay of a trace at least, the first and the last."""

Sized = tuple[int, Trace]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the writer reads, in the order of the siblings, and how far the choice had to go."""

    traces: tuple[Trace, ...]
    how: Literal["all", "even", "fewer", "shortened", "cut"]
    """all; as many of each class; fewer of each; a pair with shortened observations; a pair without middle turns."""


def choose(traces: Sequence[Trace], budget: int, length_of: Callable[[str], int]) -> Chosen | None:
    """The published rule and its completion (method.md 6(e)) for mixed siblings; None when not even a cut pair fits.

    Successes are taken shortest first, failures longest first; among equals the lower sibling comes first.
    """
    good, bad = _ranked(traces, length_of)
    if not good or not bad:
        return None
    if _total(everything := [*good, *bad]) <= budget:
        return _chosen(everything, "all")
    count = min(len(good), len(bad))
    if _total(even := [*good[:count], *bad[:count]]) <= budget:
        return _chosen(even, "even")
    for fewer in range(max(1, count - 1), 0, -1):
        if picked := _fitting(good, bad, fewer, budget):
            return _chosen(picked, "fewer")
    for limit in OBSERVATION:
        good, bad = _ranked([shortened(trace, limit) for trace in traces], length_of)
        if picked := _fitting(good, bad, 1, budget):
            return _chosen(picked, "shortened")
    pair = _cut((good[0][1], bad[-1][1]), budget, length_of)
    return Chosen(tuple(sorted(pair, key=lambda trace: trace.sibling)), "cut") if pair else None


def _ranked(traces: Sequence[Trace], length_of: Callable[[str], int]) -> tuple[list[Sized], list[Sized]]:
    """Successes, shortest first, and failures, longest first."""
    sized = [(length_of(render(trace)), trace) for trace in traces]
    good = sorted((one for one in sized if one[1].success), key=lambda one: (one[0], one[1].sibling))
    bad = sorted((one for one in sized if not one[1].success), key=lambda one: (-one[0], one[1].sibling))
    return good, bad


def _fitting(good: Sequence[Sized], bad: Sequence[Sized], count: int, budget: int) -> list[Sized] | None:
    """The `count` shortest successes, and the longest failures that fit beside them, as many."""
    picked = [*good[:count]]
    for at, failure in enumerate(bad):
        missing = 2 * count - len(picked) - 1  # after this one; the shortest stand last
        if missing >= 0 and at + missing < len(bad):
            others = bad[len(bad) - missing :]
            if _total([*picked, failure, *others]) <= budget:
                picked.append(failure)
    return picked if len(picked) == 2 * count else None


def _cut(pair: tuple[Trace, Trace], budget: int, length_of: Callable[[str], int]) -> tuple[Trace, ...] | None:
    """The pair with as few turns missing as will do, each time one from the middle of the longer trace."""
    keep = [len(trace.turns) for trace in pair]
    while True:
        cut = tuple(without_middle(trace, turns) for trace, turns in zip(pair, keep, strict=True))
        lengths = [length_of(render(trace)) for trace in cut]
        if sum(lengths) <= budget:
            return cut
        longer = [at for at in (0, 1) if keep[at] > TURNS]
        if not longer:
            return None
        keep[max(longer, key=lambda at: lengths[at])] -= 1


def _total(some: Sequence[Sized]) -> int:
    return sum(length for length, _ in some)


def _chosen(some: Sequence[Sized], how: Literal["all", "even", "fewer", "shortened"]) -> Chosen:
    return Chosen(tuple(sorted((trace for _, trace in some), key=lambda trace: trace.sibling)), how)
