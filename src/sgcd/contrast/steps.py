"""The steps of a rollout: its calls and its final answer, with the origin of every value and without the values."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, cast

from sgcd.contrast.tool_schemas import enum_values, schema_names
from sgcd.records import Call, Message, Rollout

OriginKind = Literal["user", "instructions", "result", "enum", "true", "false", "empty", "count", "new"]
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_WORD = re.compile(r"[^\W_]+(?:[.:/@_+-]+[^\W_]+)*")
_NAME = re.compile(r"[^\W\d]+")
"""A name of a tool, an argument or a field; one with a digit may be a value, such as an id that is a key."""
_PAIR = re.compile(r"\s*(?:[-*]\s+)?([^\W\d]+)\s*[:=]\s*(.*\S)\s*")
"""A part of a result in plain text: `name : value`."""
_MAX_SHORT_RESULT_WORDS = 5
"""A result of so few words counts as one value that a final answer may repeat."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. `new` was seen nowhere before: it is computed or invented."""

    kind: OriginKind
    tool: str = ""
    """The tool whose result has the value."""
    field: str = ""
    """The field of that result, if it is JSON."""


@dataclass(frozen=True, slots=True)
class StepValue:
    """A value that was passed to a tool, or repeated in a final answer. The value itself is not here."""

    argument: str
    identity: int
    """Equal values of a group have equal numbers."""
    origin: Origin = field(compare=False)
    size: int | None = field(default=None, compare=False)
    """Its rank among the numbers of the group; None when it is no number."""
    place: int = field(default=0, compare=False)
    """Its place in what it was copied from."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call, the final answer, or the limit that ended the rollout. Equal steps have equal values."""

    kind: Literal["call", "answer", "limit"]
    tool: str = ""
    is_error: bool = False
    values: tuple[StepValue, ...] = ()
    turn: int = field(default=0, compare=False)
    """The turn that it is in, from 0."""


def step_similarity(first: Step, second: Step) -> int:
    """How well two steps match. Calls of different tools do not match."""
    if (first.kind, first.tool) != (second.kind, second.tool):
        return 0
    own, other = set(first.values), set(second.values)
    return 100 + 50 * (first.is_error == second.is_error) + 50 * len(own & other) // max(1, len(own | other))


class StepBuilder:
    """Builds the steps of a group's rollouts. Names that could be values are replaced, whatever a policy calls."""

    def __init__(self, rollouts: Sequence[Rollout], mask: Callable[[str], str]) -> None:
        self._mask = mask
        self._values = [
            (name, value)
            for rollout in rollouts
            for call in rollout.calls
            for name, value in _flatten(call.arguments, "")
        ]
        self._words = {_normalize(value) for _, value in self._values}
        numbers = {number for _, value in self._values if (number := _as_number(value)) is not None}
        self._ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
        self._identities: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._schema_names = {name for rollout in rollouts for name in schema_names(rollout.tools)}

    def build(
        self, rollout: Rollout, opening: Sequence[Message], replies_by_turn: Sequence[Sequence[Message]], answer: str
    ) -> tuple[Step, ...]:
        """The steps of one rollout. `answer` is its final text; empty when a call or a limit ended it."""
        enums = {key: [*map(_normalize, constants)] for key, constants in enum_values(rollout.tools).items()}
        sources = [source for message in opening for source in self._read_source(message, "")]
        steps: list[Step] = []
        for number, (turn, replies) in enumerate(zip(rollout.turns, replies_by_turn, strict=True)):
            steps += [
                Step("call", self._safe_name(call.name), call.is_error, self._call_values(call, sources, enums), number)
                for call in turn.calls
            ]
            tools = iter([call.name for call in turn.calls])
            for message in replies:
                tool = next(tools, "") if message["role"] == "tool" else ""
                sources += self._read_source(message, self._safe_name(tool))
        last = max(0, len(rollout.turns) - 1)
        if rollout.end_reason in ("turn_limit", "token_limit"):
            steps.append(Step("limit", "turns" if rollout.end_reason == "turn_limit" else "tokens", turn=last))
        elif answer:
            steps.append(Step("answer", values=self._answer_values(answer, sources), turn=last))
        return tuple(steps)

    def _call_values(
        self, call: Call, sources: Sequence["_Source"], enums: Mapping[tuple[str, str], Sequence[str]]
    ) -> tuple[StepValue, ...]:
        values: list[StepValue] = []
        for path, value in _flatten(call.arguments, ""):
            words = _normalize(value)
            origin, place = _find_origin(value, words, sources, enums.get((call.name, path), ()))
            number = _as_number(value)
            values.append(
                StepValue(
                    " ".join(self._safe_name(name) for name in path.split(".")),
                    self._identify(f"{origin.kind == 'count'} {words}"),
                    origin,
                    None if number is None else self._ranks.get(number),
                    place,
                )
            )
        return tuple(values)

    def _answer_values(self, answer: str, sources: Sequence["_Source"]) -> tuple[StepValue, ...]:
        """The results that the answer repeats, each once: no user's words, and words of the instructions only where the
        answer names their field."""
        text = _normalize(answer)
        known = {
            kind: " ".join(source.words for source in sources if source.origin.kind == kind)
            for kind in ("user", "instructions")
        }
        repeated = {
            source.origin: None
            for source in sources
            if source.origin.kind == "result"
            and any(
                _contains(text, value)
                and not _contains(known["user"], value)
                and (not _contains(known["instructions"], value) or _contains(text, source.origin.field))
                for value in source.repeatable
            )
        }
        return tuple(
            StepValue("", self._identify(f"answer {origin.tool} {origin.field}"), origin) for origin in repeated
        )

    def _read_source(self, message: Message, tool: str) -> Iterator["_Source"]:
        content = str(message.get("content", ""))
        if message["role"] != "tool":
            kind: OriginKind = "instructions" if message["role"] == "system" else "user"
            if message["role"] != "assistant":
                yield _Source(Origin(kind), _normalize(content))
            return
        parsed = _parse_result(content)
        if parsed is None:
            words = _normalize(content)
            short = {words} if len(words.split()) <= _MAX_SHORT_RESULT_WORDS else set[str]()
            with_digits = {word for word in words.split() if re.search(r"\d", word)}
            yield _Source(Origin("result", tool), words, repeatable=frozenset((short | with_digits) - {""}))
            return
        counts: dict[str, int] = {}
        for path, value in _flatten(parsed, ""):
            if not isinstance(value, _Count):
                names = [name for name in path.split(".") if self._safe_name(name) == name]
                name, words = names[-1] if names else "", _normalize(value)
                place = counts[name] = counts.get(name, -1) + 1
                repeatable = frozenset({words} - {""}) if not isinstance(value, bool) else frozenset[str]()
                yield _Source(Origin("result", tool, name), words, place, repeatable)

    def _identify(self, key: str) -> int:
        return self._identities.setdefault(key, len(self._identities))

    def _safe_name(self, name: str) -> str:
        if name not in self._names:
            is_name = name in self._schema_names or (
                bool(_NAME.fullmatch(name)) and _normalize(name) not in self._words
            )
            self._names[name] = name if is_name and self._mask(name) == name else "value"
        return self._names[name]


class _Count(int):
    """The number of entries of a list."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Something that was seen: a message, or one field of a JSON result."""

    origin: Origin
    words: str
    place: int = 0
    repeatable: frozenset[str] = frozenset()
    """The values that a final answer may repeat."""


def _find_origin(value: object, words: str, sources: Sequence[_Source], constants: Sequence[str]) -> tuple[Origin, int]:
    """The earliest thing that has the value, and the place there. Instructions count last."""
    if isinstance(value, _Count):
        return Origin("count"), 0
    if isinstance(value, bool):
        return Origin("true" if value else "false"), 0
    if not words:
        return Origin("empty"), 0
    dialog = [source for source in sources if source.origin.kind != "instructions"]
    for source in dialog:
        if source.words == words or (source.origin.kind == "user" and _contains(source.words, words)):
            return source.origin, _place(source, words)
    for source in dialog:
        if _contains(source.words, words):
            return source.origin, _place(source, words)
    if words in constants:
        return Origin("enum"), constants.index(words)
    for source in sources:
        if _contains(source.words, words):
            return source.origin, _place(source, words)
    return Origin("new"), 0


def _place(source: _Source, words: str) -> int:
    """The place of a field among fields of its name, or of words in a text."""
    return source.place or f" {source.words} ".find(f" {words} ")


def _contains(text: str, words: str) -> bool:
    return bool(words) and f" {words} " in f" {text} "


def _normalize(value: object) -> str:
    """The words of a value in one form: lower case, numbers as digits, no punctuation around them."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", "" if value is None else str(value).casefold())
    words = [
        str(_NUMBER_WORDS.index(word)) if word in _NUMBER_WORDS else re.sub(r"(?<=\d)\.0+$", "", word)
        for word in _WORD.findall(text)
    ]
    return " ".join(words)


def _as_number(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) else float(_normalize(value))
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Scalars with the path of names to each, and the number of entries of each list."""
    if isinstance(value, Mapping):
        for name, inner in cast(Mapping[Any, Any], value).items():
            yield from _flatten(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        entries = cast(list[Any], value)
        yield path, _Count(len(entries))
        for inner in entries:
            yield from _flatten(inner, path)
    else:
        yield path, value


def _parse_result(text: str) -> Any:
    """A JSON object or list, or a text of which every part is `name : value`; None for any other text."""
    pairs = [_PAIR.fullmatch(part) for part in re.split("[\n,;]", text) if part.strip()]
    if pairs and all(pairs):
        values: dict[str, list[str]] = {}
        for name, value in (pair.group(1, 2) for pair in pairs if pair):
            values.setdefault(name, []).append(value)
        return values
    try:
        parsed = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None
    return cast(Any, parsed) if isinstance(parsed, dict | list) else None
