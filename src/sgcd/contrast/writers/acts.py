"""What an attempt does, in words: the acts of its steps, none of which names a value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from sgcd.contrast.steps import Origin, Step, StepValue

ActKind = Literal["complaint", "argument", "answer", "order", "call", "times", "end", "next", "fact"]
ACT_KINDS: tuple[ActKind, ...] = ("complaint", "argument", "answer", "order", "call", "times", "end", "next", "fact")
"""The kinds, those first that say most."""
_TIMES = ("", "once", "twice", "three times", "four times")
_PLACED_ORIGINS = {"user": "the user's words", "enum": "its listed constants"}
Relation = Literal["larger", "smaller", "earlier", "later"]
OPPOSITES: dict[Relation, Relation] = {
    "larger": "smaller",
    "smaller": "larger",
    "earlier": "later",
    "later": "earlier",
}


@dataclass(frozen=True, slots=True)
class Act:
    """Something that an attempt does, as the words that follow "attempts"."""

    kind: ActKind
    phrase: str
    tool: str = ""
    argument: str = ""


@dataclass(frozen=True, slots=True)
class PlacedAct:
    """An act, the index of the step that does it, and how many steps it spans."""

    act: Act
    index: int
    span: int = 1


def list_acts(steps: Sequence[Step], arguments: Mapping[str, Sequence[str]]) -> list[PlacedAct]:
    """All acts of an attempt. `arguments` has the names that any sibling passes to each tool."""
    return [
        *_call_acts(steps),
        *_follow_acts(steps),
        *_argument_acts(steps, arguments),
        *_complaint_acts(steps),
        *_end_acts(steps),
    ]


def relation_act(tool: str, value: StepValue, relation: Relation) -> Act:
    """An act that compares a value with that of the other side."""
    name = value.argument
    if value.origin.kind == "count":
        amount = "more" if relation == "larger" else "fewer"
        return Act("argument", f"give {amount} entries in the {name} of {tool}", tool, name)
    if relation in ("larger", "smaller"):
        return Act("argument", f"give a {relation} number as the {name} of {tool}", tool, name)
    source = _PLACED_ORIGINS.get(value.origin.kind) or _describe_result(value.origin)
    if value.origin.kind == "enum":
        return Act("argument", f"choose the {name} of {tool} {relation} in {source}", tool, name)
    return Act("argument", f"copy the {name} of {tool} from {relation} in {source}", tool, name)


def fact_act(fact: str, holds: bool) -> Act:
    """An attempt after which a fact holds, or does not."""
    return Act("fact", f"end {'with' if holds else 'without'} {fact}")


def describe_step(step: Step) -> str:
    """A step as a noun."""
    if step.kind == "call":
        return step.tool
    return "the final answer" if step.kind == "answer" else f"the limit of {step.tool}"


def _call_acts(steps: Sequence[Step]) -> Iterator[PlacedAct]:
    """Which tools are called, how often, and in which order. Calls that failed do not count."""
    positions: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        if step.kind == "call" and not step.is_error:
            positions.setdefault(step.tool, []).append(index)
    for tool, indices in positions.items():
        count = len(indices)
        times = _TIMES[count] if count < len(_TIMES) else "more than four times"
        for index in indices:
            yield PlacedAct(Act("call", f"call {tool}", tool), index)
            yield from (PlacedAct(Act("times", f"call {tool} {times}", tool), placed) for placed in (index, index + 1))
        for other, other_indices in positions.items():
            if indices[0] < other_indices[0]:
                span = other_indices[0] - indices[0]
                yield PlacedAct(Act("order", f"call {tool} before {other}", tool), indices[0], span)


def _follow_acts(steps: Sequence[Step]) -> Iterator[PlacedAct]:
    """Which step comes right after which."""
    for index, step in enumerate(steps):
        before = steps[index - 1] if index else None
        if step.kind == "answer":
            phrase = f"answer right after {before.tool}" if before else "answer without any call"
            yield PlacedAct(Act("next", phrase), index)
        elif step.kind == "call":
            phrase = f"call {step.tool} right after {before.tool}" if before else f"call {step.tool} first"
            if before and before.tool == step.tool:
                phrase = f"call {step.tool} again at once"
            yield PlacedAct(Act("next", phrase, step.tool), index)


def _argument_acts(steps: Sequence[Step], arguments: Mapping[str, Sequence[str]]) -> Iterator[PlacedAct]:
    """Where values come from, and which arguments are given."""
    for index, step in enumerate(steps):
        if step.kind == "answer":
            phrases = [f"repeat {_describe_result(value.origin)} in the final answer" for value in step.values]
            for phrase in phrases or ["repeat no result of a tool in the final answer"]:
                yield PlacedAct(Act("answer", phrase), index)
        elif step.kind == "call":
            given = {value.argument for value in step.values}
            for name in arguments.get(step.tool, ()):
                verb = "give" if name in given else "leave out"
                yield PlacedAct(Act("argument", f"{verb} the {name} of {step.tool}", step.tool, name), index)
            for value in step.values:
                if phrase := _describe_origin(step.tool, value):
                    yield PlacedAct(Act("argument", phrase, step.tool, value.argument), index)


def _describe_origin(tool: str, value: StepValue) -> str:
    name = f"the {value.argument} of {tool}"
    match value.origin.kind:
        case "user":
            return f"copy {name} from the user's words"
        case "instructions":
            return f"copy {name} from the instructions"
        case "result":
            return f"copy {name} from {_describe_result(value.origin)}"
        case "enum":
            return f"choose {name} from its listed constants"
        case "true" | "false":
            return f"set {name} to {value.origin.kind}"
        case "empty":
            return f"leave {name} empty"
        case "new":
            return f"compute or invent {name}"
        case "count":
            return ""


def _describe_result(origin: Origin) -> str:
    source = f"the result of {origin.tool}"
    return f"the {origin.field} in {source}" if origin.field else source


def _complaint_acts(steps: Sequence[Step]) -> Iterator[PlacedAct]:
    """What follows when a tool complains."""
    for index, (step, following) in enumerate(pairwise(steps), start=1):
        if not step.is_error:
            continue
        phrase = ""
        if following.kind == "answer":
            phrase = f"give up and answer when {step.tool} complains"
        elif following.kind == "call" and following.tool != step.tool:
            phrase = f"call {following.tool} when {step.tool} complains"
        elif following.kind == "call" and following.values == step.values:
            phrase = f"repeat the same call of {step.tool} when it complains"
        elif following.kind == "call":
            changed = {value.argument: None for value in following.values if value not in step.values}
            others = f"another {join_words([*changed])}" if changed else "fewer arguments"
            phrase = f"call {step.tool} again with {others} when it complains"
        if phrase:
            yield PlacedAct(Act("complaint", phrase, step.tool), index)


def _end_acts(steps: Sequence[Step]) -> Iterator[PlacedAct]:
    last = steps[-1] if steps else None
    if last is None or last.kind == "call":
        yield PlacedAct(Act("end", f"end with a call of {last.tool}" if last else "do nothing"), len(steps))
    else:
        phrase = "end with an answer" if last.kind == "answer" else f"run into the limit of {last.tool}"
        yield PlacedAct(Act("end", phrase), len(steps) - 1)


def join_words(words: Sequence[str]) -> str:
    """The words as a list in a sentence.

    >>> join_words(["find", "check", "take"])
    'find, check and take'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
