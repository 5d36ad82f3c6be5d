"""The lab's form of the built-in writer: compares siblings' moves by rule, in the few words that its policies know."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, TypeVar

from sgcd.align import Deviation, edit_distance, find_deviations, medoid_index
from sgcd.contrast.leakage.masking import PLACEHOLDER
from sgcd.contrast.trace import Trace

CountedItem = TypeVar("CountedItem", bound=Hashable)

_MAX_ALTERNATIVES = 2
"""The most alternatives in a part, and the most points of deviation."""
_BRANCH_MOVES = 2
"""The last moves of an attempt, which are its branch: the last tool and the final text."""


class MovesWriter:
    """Writes the same text for the same traces."""

    name = "built-in"
    reads_steps = False
    parts: ClassVar[Mapping[str, slice]] = {"what to do": slice(0, 2), "deviations": slice(3, 4)}
    """Parts of its text, as lines."""

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        return compose_moves(traces)


def compose_moves(traces: Sequence[Trace]) -> str:
    """The five parts: state checks, successful branches, failed branches, points of deviation, masked values.

    All siblings count. Checks and branches are those that most siblings share. Each failure is aligned with its nearest
    success. More frequent alternatives come first.
    """
    successes = [trace for trace in traces if trace.success]
    failures = sorted((trace for trace in traces if not trace.success), key=lambda trace: -len(trace.moves))
    medoid = successes[medoid_index([trace.moves for trace in successes])]
    branch_moves = _common_branches(sorted(successes, key=lambda trace: (trace is not medoid, len(trace.moves))))
    return "\n".join(
        [
            f"what successful attempts check : {_join_moves(_common_checks(medoid, successes))} .",
            f"then they do : {_join_moves(branch_moves)} .",
            "where failed attempts go wrong : "
            f"{_join_moves([*_common_branches(failures), *_failure_errors(successes, failures)])} .",
            f"{_describe_deviations(medoid, successes, failures)} .",
            f"keep masked : {PLACEHOLDER} .",
        ]
    )


def _common_checks(medoid: Trace, successes: Sequence[Trace]) -> list[str]:
    """Tools before the medoid's branch that at least half of the successes used."""
    tools_before_branch = medoid.tools[: max(0, len(medoid.moves) - _BRANCH_MOVES)]
    return [
        tool
        for tool in dict.fromkeys(tools_before_branch)
        if 2 * sum(tool in trace.tools for trace in successes) >= len(successes)
    ]


def _common_branches(traces: Sequence[Trace]) -> list[str]:
    """The most common last moves of attempts."""
    branches = _most_common(Counter(trace.moves[-_BRANCH_MOVES:] for trace in traces))
    return [move for branch in branches for move in branch]


def _failure_errors(successes: Sequence[Trace], failures: Sequence[Trace]) -> list[str]:
    """Errors that are more frequent in failures than in successes."""
    success_errors = Counter(error for trace in successes for error in trace.errors)
    failure_errors = Counter(error for trace in failures for error in trace.errors)
    return _most_common(
        Counter(
            {
                error: count
                for error, count in failure_errors.items()
                if count * len(successes) > success_errors[error] * len(failures)
            }
        )
    )


def _describe_deviations(medoid: Trace, successes: Sequence[Trace], failures: Sequence[Trace]) -> str:
    """The points where failures leave their nearest success, and what they do instead."""
    deviations_by_point: dict[tuple[str, str], list[Deviation]] = {}
    for trace in failures:
        nearest = min(successes, key=lambda success: (edit_distance(success.moves, trace.moves), success is not medoid))
        for deviation in find_deviations(nearest.moves, trace.moves):
            deviations_by_point.setdefault((deviation.after, deviation.expected), []).append(deviation)
    if not deviations_by_point:  # the same moves with other values
        deviations_by_point = {(medoid.moves[-1] if medoid.moves else "nothing", "nothing"): []}
    sentences: list[str] = []
    for after, expected in _most_common(
        Counter({point: len(deviations_by_point[point]) for point in deviations_by_point})
    ):
        actual = _most_common(Counter(deviation.actual for deviation in deviations_by_point[after, expected]))
        sentences.append(f"after {after} they leave : {_join_moves(actual or ['nothing'])} instead of {expected}")
    return _join_moves(sentences)


def _most_common(counts: Counter[CountedItem]) -> list[CountedItem]:
    """The most frequent item, and others that occur more than once; among equals, the first one counted."""
    ranked = counts.most_common()
    return [item for rank, (item, count) in enumerate(ranked[:_MAX_ALTERNATIVES]) if rank == 0 or count > 1]


def _join_moves(moves: Sequence[str]) -> str:
    return " , ".join(moves) if moves else "none"
