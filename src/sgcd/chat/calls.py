"""What stands between the marks of a call becomes a Call, or a sentence that says what is wrong with it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sgcd.records import Call

Tools = Sequence[Mapping[str, Any]]
LONGEST = 40  # characters of a call that a sentence about it quotes

FUNCTION = re.compile(r"\s*<function=([^>\n]*)>(.*)</function>\s*", re.DOTALL)
PARAMETER = re.compile(r"\s*<parameter=([^>\n]*)>(.*?)</parameter>", re.DOTALL)
BETWEEN = re.compile(r"(?:\s|;|<\|python_tag\|>)*")
WORDS_OF_JSON = {"True": True, "False": False, "None": None}


def parse_words(text: str, tools: Tools = ()) -> Call | str:
    """The lab's calls are plain words: a tool, then the name and the value of each argument."""
    words = text.split()
    if not words:
        return "the call is empty"
    if len(words) % 2 == 0:
        return f"each argument of {words[0]} needs a name and a value"
    names, values = words[1::2], words[2::2]
    if len(set(names)) < len(names):
        return f"an argument of {words[0]} is given twice"
    return Call(words[0], dict(zip(names, values, strict=True)))


def parse_json(text: str, tools: Tools = ()) -> Call | str:
    """Hermes, Qwen2.5, Qwen3: one JSON object with name and arguments."""
    try:
        return call_of(_all_of(text), "arguments")
    except Unreadable as problem:
        return str(problem)


def parse_tags(text: str, tools: Tools = ()) -> Call | str:
    """Qwen3.5: <function=name>, inside it <parameter=name>value</parameter>; the tool's schema types the values."""
    if not text.strip():
        return "the call is empty"
    function = FUNCTION.fullmatch(text)
    if not function:
        return f"a call is <function=NAME> to </function>, this one is {_quoted(text)}"
    name, body = function[1].strip(), function[2]
    if not name:
        return "the call names no tool"
    arguments: dict[str, Any] = {}
    at = 0
    while found := PARAMETER.match(body, at):
        key = found[1].strip()
        if not key:
            return f"an argument of {name} has no name"
        if key in arguments:
            return f"an argument of {name} is given twice"
        arguments[key] = _typed(_without_breaks(found[2]), _schema(tools, name, key))
        at = found.end()
    if body[at:].strip():
        return f"each argument of {name} is <parameter=NAME> to </parameter>, this is none: {_quoted(body[at:])}"
    return Call(name, arguments)


def parse_bare(text: str, tools: Tools = ()) -> list[Call] | str:
    """Llama 3: JSON objects with name and parameters, one after the other, after marks or a semicolon or neither."""
    calls: list[Call] = []
    at = _skipped(text, 0)
    while at < len(text):
        try:
            found, at = _json(text, at)
        except Unreadable as problem:
            return str(problem)
        call = call_of(found, "parameters")
        if isinstance(call, str):
            return call
        calls.append(call)
        at = _skipped(text, at)
    return calls or "the call is empty"


def _skipped(text: str, at: int) -> int:
    found = BETWEEN.match(text, at)
    return found.end() if found else at


def call_of(found: Any, key: str) -> Call | str:
    """A decoded JSON object as a call; Llama says parameters where others say arguments, and mixes them up."""
    if not isinstance(found, Mapping):
        return f"a call is a JSON object with name and {key}, this one is {_quoted(json.dumps(found))}"
    told = cast(Mapping[str, Any], found)
    name = told.get("name")
    if not isinstance(name, str) or not name.strip():
        return "the call names no tool"
    other = {"arguments": "parameters", "parameters": "arguments"}[key]
    if key not in told and other not in told:
        return f"the call of {name} has no {key}; they are {{}} where none are needed"
    arguments = told[key] if key in told else told[other]
    if not isinstance(arguments, Mapping):
        return f"the {key} of {name} must be a JSON object, they are {_quoted(json.dumps(arguments))}"
    return Call(name, dict(cast(Mapping[str, Any], arguments)))


class Unreadable(ValueError):
    """Why a text is not the JSON of a call, as a sentence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Unreadable(f"{_quoted(twice)} is given twice")
    return dict(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _json(text: str, at: int = 0) -> tuple[Any, int]:
    """The value that begins at a character, and where it ends; it can be written to any file again."""
    try:
        found, end = DECODER.raw_decode(text, at)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # no half characters, no infinity
    except Unreadable as problem:
        raise Unreadable(f"in the call {_quoted(text)} {problem}") from problem
    except json.JSONDecodeError as problem:
        told = f"{problem.msg} at character {problem.pos}"
        raise Unreadable(f"the call {_quoted(text)} is not JSON: {told}") from problem
    except (ValueError, RecursionError) as problem:
        raise Unreadable(f"the call {_quoted(text)} is not JSON that can be read") from problem
    return found, end


def _all_of(text: str) -> Any:
    """The one value that a text is."""
    plain = text.strip()
    if not plain:
        raise Unreadable("the call is empty")
    found, end = _json(plain)
    if plain[end:].strip():
        raise Unreadable(f"the call {_quoted(plain)} is not JSON: it goes on at character {end}")
    return found


def _quoted(text: str) -> str:
    """On one line, and short."""
    line = " ".join(text.split())
    return repr(line if len(line) <= LONGEST else line[: LONGEST - 4] + " ...")


def _without_breaks(text: str) -> str:
    """The template puts each value on lines of its own; those two breaks are not the value's."""
    return text.removeprefix("\n").removesuffix("\n")


def _schema(tools: Tools, name: str, key: str) -> Mapping[str, Any]:
    for tool in tools:
        function = tool.get("function", {})
        if function.get("name") == name:
            return function.get("parameters", {}).get("properties", {}).get(key, {})
    return {}


def _types(schema: Mapping[str, Any]) -> set[str]:
    told: Any = schema.get("type")
    types: set[str] = {told} if isinstance(told, str) else set(cast(list[str], told or []))
    for inner in cast(list[Mapping[str, Any]], [*schema.get("anyOf", ()), *schema.get("oneOf", ())]):
        types |= _types(inner)
    return types


def _typed(value: str, schema: Mapping[str, Any]) -> Any:
    """A value is a text, unless its schema wants something else and it can be read as that."""
    types = _types(schema)
    if not types or "string" in types:
        return value
    plain = value.strip()
    if plain in WORDS_OF_JSON:  # as the template writes them
        return WORDS_OF_JSON[plain]
    try:
        return _all_of(plain)
    except Unreadable:
        return value  # the tool says what it wanted
