"""The built-in writer: says in plain sentences where failures part from successes, by rule and without a model."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from sgcd.align import Parting, align_sequences, find_partings, total_similarity
from sgcd.contrast.steps import Step, StepValue, step_similarity
from sgcd.contrast.trace import Trace
from sgcd.contrast.writers import WriterFailed
from sgcd.contrast.writers.acts import (
    ACT_KINDS,
    OPPOSITES,
    Act,
    ActKind,
    PlacedAct,
    Relation,
    describe_step,
    fact_act,
    list_acts,
    relation_act,
)

_MAX_POINTS = 3
"""The most points of deviation that a reference names."""
_PLACED_KINDS = ("user", "result", "enum")
"""Origins in which a value has a place."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point where failures part from successes: what either side does there, in acts of which none is on both."""

    place: str
    right: Act
    wrong: Act | None
    """None when failures have nothing in common there."""
    turns: Mapping[int, int] = field(default_factory=dict[int, int], compare=False)
    """The turn, from 0, in which a sibling parts there; of those that were aligned."""


class BuiltInWriter:
    """Writes the same text for the same traces.

    A fault that is named becomes likelier, so failures are named only where the divergence is taken between two
    teachers that both read it.
    """

    name = "built-in"
    reads_steps = True
    parts: ClassVar[Mapping[str, slice]] = {"what to do": slice(0, 1), "deviations": slice(1, None)}
    """Parts of its text, as lines."""

    def __init__(self, names_failures: bool = False) -> None:
        self.names_failures = names_failures

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        return compose_reference(traces, names_failures=self.names_failures)


def compose_reference(traces: Sequence[Trace], *, names_failures: bool = False) -> str:
    """What successes call, then each point of deviation, the earliest first."""
    points = find_points(traces)
    if not points:
        raise WriterFailed("nothing parts them: successes and failures do the same as far as calls and origins show")
    lines = [_describe_calls([trace for trace in traces if trace.success])]
    for number, point in enumerate(points):
        lines.append(f"Attempts {'also' if number else 'first'} part {point.place}.")
        lines.append(f"Successful attempts {point.right.phrase}.")
        if names_failures and point.wrong:
            lines.append(f"Failed attempts {point.wrong.phrase}.")
    return "\n".join(lines)


def find_points(traces: Sequence[Trace]) -> list[Point]:
    """The points of deviation between each failure and the nearest success that it can be told from, in order.

    An act is right when a larger share of the successes than of the failures does it, and at least half of them; wrong
    the other way round. So no act is both.
    """
    contrast = _Contrast(traces)
    found: list[tuple[int, Point]] = []
    for failure in contrast.failures:
        by_similarity = sorted(
            contrast.successes, key=lambda success: -total_similarity(success.steps, failure.steps, step_similarity)
        )
        points_by_success = (contrast.find_pair_points(success, failure) for success in by_similarity)
        found += next(filter(None, points_by_success), list[tuple[int, Point]]())
    points_by_act: dict[Act, list[tuple[int, Point]]] = {}
    for start, point in found:
        points_by_act.setdefault(point.right, []).append((start, point))
    for fact_point in contrast.find_fact_points():
        points_by_act.setdefault(fact_point.right, []).append((sys.maxsize, fact_point))
    best = sorted(points_by_act, key=lambda act: (-contrast.margin(act), -len(points_by_act[act])))[:_MAX_POINTS]
    earliest = sorted(best, key=lambda act: min(start for start, _ in points_by_act[act]))
    return [_merge([point for _, point in points_by_act[act]]) for act in earliest]


def _merge(points: Sequence[Point]) -> Point:
    """One point of several with the same right act; the most common of their places and of their wrong acts."""
    place = Counter(point.place for point in points).most_common(1)[0][0]
    wrong = Counter(point.wrong for point in points if point.wrong and point.place == place).most_common(1)
    turns = {sibling: turn for point in reversed(points) for sibling, turn in point.turns.items()}
    return Point(place, points[0].right, wrong[0][0] if wrong else None, dict(sorted(turns.items())))


class _Contrast:
    """Which acts more of the successes do than of the failures."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.successes = [trace for trace in traces if trace.success]
        self.failures = [trace for trace in traces if not trace.success]
        arguments: dict[str, dict[str, None]] = {}
        for step in (step for trace in traces for step in trace.steps if step.kind == "call"):
            arguments.setdefault(step.tool, {}).update(dict.fromkeys(value.argument for value in step.values))
        names = {tool: [*of_tool] for tool, of_tool in arguments.items()}
        self._acts = {trace.sibling: list_acts(trace.steps, names) for trace in traces}
        self._shares = {True: self._count_acts(self.successes), False: self._count_acts(self.failures)}
        self._add_relations()

    def find_pair_points(self, success: Trace, failure: Trace) -> list[tuple[int, Point]]:
        """The points where a failure parts from a success, with the index of the success's step."""
        return [
            (parting.own.start, point)
            for parting in find_partings(success.steps, failure.steps, step_similarity)
            if (point := self._describe(parting, success, failure))
        ]

    def find_fact_points(self) -> list[Point]:
        """The facts that hold at the end of more of the successes than of the failures, or the other way round."""
        points: list[Point] = []
        for fact in dict.fromkeys(fact for trace in self.successes for fact, _ in trace.facts):
            for right, wrong in (
                (fact_act(fact, True), fact_act(fact, False)),
                (fact_act(fact, False), fact_act(fact, True)),
            ):
                if self.margin(right) > 0 and self._shares[True].get(right, 0) >= Fraction(1, 2):
                    wrong_share = self._shares[False].get(wrong, 0)
                    points.append(Point("at the end", right, wrong if wrong_share >= Fraction(1, 2) else None))
        return points

    def _describe(self, parting: Parting, success: Trace, failure: Trace) -> Point | None:
        """The acts of either side where they part; None when no act of the success is right there."""
        relations = list(_find_relations(parting, success.steps, failure.steps))
        rights = [relation_act(tool, value, relation) for tool, value, _, relation in relations]
        wrongs = [relation_act(tool, value, OPPOSITES[relation]) for tool, _, value, relation in relations]
        kinds = _kinds_of(parting, success.steps, failure.steps)
        right = self._best_act(success, parting.own, rights, kinds=kinds)
        if right is None:
            return None
        wrong = self._best_act(failure, parting.other, wrongs, kinds=kinds)
        turns = {success.sibling: _turn_at(success.steps, parting.own.start)}
        turns[failure.sibling] = _turn_at(failure.steps, parting.other.start)
        return Point(_describe_place(parting, success.steps, right), right, wrong, turns)

    def margin(self, act: Act) -> Fraction:
        """The share of successes that do the act less the share of failures that do it."""
        return self._shares[True].get(act, Fraction(0)) - self._shares[False].get(act, Fraction(0))

    def _best_act(self, trace: Trace, span: range, relations: Sequence[Act], *, kinds: Sequence[ActKind]) -> Act | None:
        sign, own_shares = (1, self._shares[True]) if trace.success else (-1, self._shares[False])
        indices = span if len(span) else range(span.start, span.start + 1)
        placed = [
            *(one for one in self._acts[trace.sibling] if one.index in indices and one.act.kind in kinds),
            *(PlacedAct(act, span.start, 2) for act in relations),
        ]
        candidates = [
            one for one in placed if sign * self.margin(one.act) > 0 and own_shares.get(one.act, 0) >= Fraction(1, 2)
        ]
        best = min(
            candidates,
            key=lambda one: (-sign * self.margin(one.act), ACT_KINDS.index(one.act.kind), one.span, one.index),
            default=None,
        )
        return best.act if best else None

    def _count_acts(self, traces: Sequence[Trace]) -> dict[Act, Fraction]:
        """The share of the traces that do each act."""
        counts = Counter(
            act
            for trace in traces
            for act in {placed.act for placed in self._acts[trace.sibling]} | {fact_act(*fact) for fact in trace.facts}
        )
        return {act: Fraction(count, len(traces)) for act, count in counts.items()}

    def _add_relations(self) -> None:
        """Relations hold between two sides: their shares are of all pairs of a success and a failure."""
        counts: dict[bool, Counter[Act]] = {True: Counter(), False: Counter()}
        for success in self.successes:
            for failure in self.failures:
                found: dict[bool, set[Act]] = {True: set(), False: set()}
                for i, j in align_sequences(success.steps, failure.steps, step_similarity):
                    parting = Parting(range(i, i + 1), range(j, j + 1), is_pair=True)
                    for tool, own, other, relation in _find_relations(parting, success.steps, failure.steps):
                        found[True].add(relation_act(tool, own, relation))
                        found[False].add(relation_act(tool, other, OPPOSITES[relation]))
                for side, acts in found.items():
                    counts[side].update(acts)
        num_pairs = len(self.successes) * len(self.failures)
        for side, of_side in counts.items():
            self._shares[side].update({act: Fraction(count, num_pairs) for act, count in of_side.items()})


def _kinds_of(parting: Parting, own: Sequence[Step], other: Sequence[Step]) -> list[ActKind]:
    """The kinds of acts that can tell the two sides of a parting from each other."""
    before = (own[: parting.own.start][-1:], other[: parting.other.start][-1:])
    is_complaint = all(step.is_error for steps in before for step in steps) and all(before)
    if parting.is_pair:
        kinds: list[ActKind] = ["argument", "answer"]
    else:
        kinds = [kind for kind in ACT_KINDS if kind not in ("complaint", "argument", "answer")]
    return [*(["complaint"] if is_complaint else []), *kinds]


def _find_relations(
    parting: Parting, own: Sequence[Step], other: Sequence[Step]
) -> Iterator[tuple[str, StepValue, StepValue, Relation]]:
    """Arguments of two calls that differ in size, or in their place in the same source."""
    if not parting.is_pair or own[parting.own.start].kind != "call":
        return
    step, other_step = own[parting.own.start], other[parting.other.start]
    if step.tool != other_step.tool:
        return
    other_values = dict(_number_arguments(other_step.values))
    for key, value in _number_arguments(step.values):
        other_value = other_values.get(key)
        if other_value is None or other_value.identity == value.identity:
            continue
        if value.size is not None and other_value.size is not None:
            yield step.tool, value, other_value, "larger" if value.size > other_value.size else "smaller"
        elif (
            value.origin == other_value.origin
            and value.origin.kind in _PLACED_KINDS
            and value.place != other_value.place
        ):
            yield step.tool, value, other_value, "earlier" if value.place < other_value.place else "later"


def _number_arguments(values: Iterable[StepValue]) -> Iterator[tuple[tuple[str, int], StepValue]]:
    """Each value with its argument and a number among those of that argument."""
    counts = Counter[str]()
    for value in values:
        yield (value.argument, counts[value.argument]), value
        counts[value.argument] += 1


def _describe_place(parting: Parting, steps: Sequence[Step], right: Act) -> str:
    if right.kind == "complaint":
        return f"when {right.tool} complains"
    if right.kind == "answer":
        return "at the final answer"
    if right.kind == "argument" and parting.is_pair:
        return f"at the {right.argument} of {right.tool}"
    return f"after {describe_step(steps[parting.own.start - 1])}" if parting.own.start else "at the first step"


def _turn_at(steps: Sequence[Step], index: int) -> int:
    """The turn of a step, or of the last one where a sibling ended earlier."""
    return steps[min(index, len(steps) - 1)].turn if steps else 0


def _describe_calls(successes: Sequence[Trace]) -> str:
    """The tools that at least half of the successes call, in the order of the most typical one."""
    typical = max(
        successes,
        key=lambda trace: sum(total_similarity(trace.steps, other.steps, step_similarity) for other in successes),
    )
    shared = [
        tool
        for tool in dict.fromkeys(_called_tools(typical))
        if 2 * sum(tool in _called_tools(trace) for trace in successes) >= len(successes)
    ]
    return f"Successful attempts call {', then '.join(shared)}." if shared else "Successful attempts call no tool."


def _called_tools(trace: Trace) -> list[str]:
    return [step.tool for step in trace.steps if step.kind == "call"]
