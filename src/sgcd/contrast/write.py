"""The built-in writer: no model, only what siblings visibly did and how it ended, in five parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.contrast.mask import PLACEHOLDER, mask
from sgcd.records import Rollout

ANSWER_WORDS = 5  # enough to tell a refusal from a confirmation


@dataclass(frozen=True, slots=True)
class Trace:
    """What one sibling visibly did: tools in order, then the beginning of what it said; and whether it succeeded.

    >>> Trace(True, ("find_user", "get_booking"), "it is done thank you").success
    True
    """

    success: bool
    tools: tuple[str, ...]
    answer: str

    @property
    def steps(self) -> tuple[str, ...]:
        return (*self.tools, f"say {self.answer}" if self.answer else "say nothing")


def trace_of(rollout: Rollout, literals: Sequence[str]) -> Trace:
    """The visible part of a rollout; literals are masked before anything is written."""
    last = rollout.messages[-1] if rollout.messages else {}
    said = str(last.get("content", "")) if last.get("role") == "assistant" and not rollout.turns[-1].calls else ""
    return trace(rollout.success, [call.name for call in rollout.calls if not call.failed], said, literals)


def trace(success: bool, tools: Sequence[str], said: str, literals: Sequence[str]) -> Trace:
    """A trace from the names of the tools that answered and the last words."""
    return Trace(success, tuple(tools), " ".join(mask(said, literals).split()[-ANSWER_WORDS - 4 :][:ANSWER_WORDS]))


def write(traces: Sequence[Trace]) -> str:
    """The five parts: state checks, successful branches, failed branches, points of deviation, what stays masked."""
    good = min((trace for trace in traces if trace.success), key=lambda trace: len(trace.steps))
    bad = max((trace for trace in traces if not trace.success), key=lambda trace: len(trace.steps))
    checks = _shared([trace.tools for trace in traces if trace.success])[: max(0, len(good.steps) - 2)]
    fork = len(_common(good.steps, bad.steps))
    left = bad.steps[fork] if fork < len(bad.steps) else "nothing"
    kept = good.steps[fork] if fork < len(good.steps) else "nothing"
    after = good.steps[fork - 1] if fork else "nothing"
    return "\n".join(
        [
            f"what successful attempts check : {_list(checks)} .",
            f"then they do : {_list(good.steps[-2:])} .",
            f"where failed attempts go wrong : {_list(bad.steps[-2:])} .",
            f"after {after} they leave : {left} instead of {kept} .",
            f"keep masked : {PLACEHOLDER} .",
        ]
    )


def _list(steps: Sequence[str]) -> str:
    return " , ".join(steps) if steps else "none"


def _common(first: Sequence[str], second: Sequence[str]) -> Sequence[str]:
    count = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    return first[:count]


def _shared(sequences: Sequence[Sequence[str]]) -> list[str]:
    return [step for step in dict.fromkeys(sequences[0]) if all(step in other for other in sequences)]
