"""The built-in writer: no model, only what siblings visibly did and how it ended, in five parts."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

from sgcd.contrast.align import Parting, distance, middle, partings
from sgcd.contrast.mask import PLACEHOLDER
from sgcd.contrast.trace import Trace

Thing = TypeVar("Thing", bound=Hashable)

MOST = 2
"""Alternatives in a part, and points of deviation, at most."""
BRANCH = 2
"""Moves at the end of an attempt that make its branch: what it did, and what it said of it."""


class Writer(Protocol):
    """Whatever turns traces into the text of a reference."""

    @property
    def name(self) -> str: ...

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        """`refused` says of each earlier answer to the same traces why it was not taken; raises Unwritten."""
        ...


class Unwritten(Exception):
    """Why a writer has nothing to give; the first words, up to a colon, are what is counted."""

    def __init__(self, cause: str, again: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.again = again
        """Whether it may do better when it is told the cause."""


class BuiltIn:
    """The same traces, the same text."""

    name = "built-in"

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        return write(traces)


def write(traces: Sequence[Trace]) -> str:
    """The five parts: state checks, successful branches, failed branches, points of deviation, what stays masked.

    Every sibling counts: checks and branches are those that most of them share, and each failure is aligned with the
    success that is nearest to it. Of alternatives the most frequent comes first.
    """
    good = [trace for trace in traces if trace.success]
    bad = sorted((trace for trace in traces if not trace.success), key=lambda trace: -len(trace.moves))
    model = good[middle([trace.moves for trace in good])]
    then = _branches(sorted(good, key=lambda trace: (trace is not model, len(trace.moves))))
    return "\n".join(
        [
            f"what successful attempts check : {_list(_checks(model, good))} .",
            f"then they do : {_list(then)} .",
            f"where failed attempts go wrong : {_list([*_branches(bad), *_errors(good, bad)])} .",
            f"{_deviations(model, good, bad)} .",
            f"keep masked : {PLACEHOLDER} .",
        ]
    )


def _checks(model: Trace, good: Sequence[Trace]) -> list[str]:
    """What comes before the branch, where at least half of the successes did it too."""
    before = model.tools[: max(0, len(model.moves) - BRANCH)]
    return [tool for tool in dict.fromkeys(before) if 2 * sum(tool in trace.tools for trace in good) >= len(good)]


def _branches(traces: Sequence[Trace]) -> list[str]:
    """How attempts end."""
    branches = _most(Counter(trace.moves[-BRANCH:] for trace in traces))
    return [move for branch in branches for move in branch]


def _errors(good: Sequence[Trace], bad: Sequence[Trace]) -> list[str]:
    """What tools complained of in failures more often than in successes."""
    known = Counter(error for trace in good for error in trace.errors)
    found = Counter(error for trace in bad for error in trace.errors)
    return _most(Counter({error: n for error, n in found.items() if n * len(good) > known[error] * len(bad)}))


def _deviations(model: Trace, good: Sequence[Trace], bad: Sequence[Trace]) -> str:
    """After what failures part from the success that is nearest to them, and what they do instead."""
    points: dict[tuple[str, str], list[Parting]] = {}
    for trace in bad:
        nearest = min(good, key=lambda other: (distance(other.moves, trace.moves), other is not model))
        for parting in partings(nearest.moves, trace.moves):
            points.setdefault((parting.after, parting.kept), []).append(parting)
    if not points:  # they made the same moves, with other values in them
        points = {(model.moves[-1] if model.moves else "nothing", "nothing"): []}
    told: list[str] = []
    for after, kept in _most(Counter({point: len(points[point]) for point in points})):
        left = _most(Counter(parting.left for parting in points[after, kept]))
        told.append(f"after {after} they leave : {_list(left or ['nothing'])} instead of {kept}")
    return _list(told)


def _most(counts: Counter[Thing]) -> list[Thing]:
    """The most frequent, and others that are no accident; among equals the one that was counted first."""
    ranked = counts.most_common()
    return [thing for at, (thing, count) in enumerate(ranked[:MOST]) if at == 0 or count > 1]


def _list(moves: Sequence[str]) -> str:
    return " , ".join(moves) if moves else "none"
