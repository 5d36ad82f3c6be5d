"""How families of models write thinking and tool calls, and how a call's text is parsed."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sgcd.records import Call

Tools = Sequence[Mapping[str, Any]]
_MAX_QUOTED_CHARACTERS = 40  # characters of a call that a sentence about it quotes

_FUNCTION_PATTERN = re.compile(r"\s*<function=([^>\n]*)>(.*)</function>\s*", re.DOTALL)
_PARAMETER_PATTERN = re.compile(r"\s*<parameter=([^>\n]*)>(.*?)</parameter>", re.DOTALL)
_CALL_SEPARATOR = re.compile(r"(?:\s|;|<\|python_tag\|>)*")
_PYTHON_LITERALS = {"True": True, "False": False, "None": None}


def parse_word_call(text: str, tools: Tools = ()) -> Call | str:
    """The lab's format: plain words, first the tool, then the name and the value of each argument."""
    words = text.split()
    if not words:
        return "the call is empty"
    if len(words) % 2 == 0:
        return f"each argument of {words[0]} needs a name and a value"
    names, values = words[1::2], words[2::2]
    if len(set(names)) < len(names):
        return f"an argument of {words[0]} is given twice"
    return Call(words[0], dict(zip(names, values, strict=True)))


def parse_json_call(text: str, tools: Tools = ()) -> Call | str:
    """The format of Hermes, Qwen2.5 and Qwen3: one JSON object with name and arguments."""
    try:
        return call_from_json(_decode_whole(text), "arguments")
    except CallSyntaxError as problem:
        return str(problem)


def parse_tag_call(text: str, tools: Tools = ()) -> Call | str:
    """The format of Qwen3.5: <function=name> with <parameter=name>value</parameter>; the schema types the values."""
    if not text.strip():
        return "the call is empty"
    function = _FUNCTION_PATTERN.fullmatch(text)
    if not function:
        return f"a call is <function=NAME> to </function>, this one is {_quote(text)}"
    name, body = function[1].strip(), function[2]
    if not name:
        return "the call names no tool"
    arguments: dict[str, Any] = {}
    position = 0
    while parameter := _PARAMETER_PATTERN.match(body, position):
        key = parameter[1].strip()
        if not key:
            return f"an argument of {name} has no name"
        if key in arguments:
            return f"an argument of {name} is given twice"
        arguments[key] = _convert_value(_strip_line_breaks(parameter[2]), _argument_schema(tools, name, key))
        position = parameter.end()
    if body[position:].strip():
        return f"each argument of {name} is <parameter=NAME> to </parameter>, this is none: {_quote(body[position:])}"
    return Call(name, arguments)


def parse_bare_calls(text: str, tools: Tools = ()) -> list[Call] | str:
    """The format of Llama 3: JSON objects with name and parameters, with marks, semicolons or nothing between them."""
    calls: list[Call] = []
    position = _skip_separators(text, 0)
    while position < len(text):
        try:
            value, position = _decode_json(text, position)
        except CallSyntaxError as problem:
            return str(problem)
        call = call_from_json(value, "parameters")
        if isinstance(call, str):
            return call
        calls.append(call)
        position = _skip_separators(text, position)
    return calls or "the call is empty"


def _skip_separators(text: str, position: int) -> int:
    match = _CALL_SEPARATOR.match(text, position)
    return match.end() if match else position


def call_from_json(value: Any, key: str) -> Call | str:
    """Make a call from a decoded JSON object. Llama 3 writes parameters, or sometimes arguments; both are accepted."""
    if not isinstance(value, Mapping):
        return f"a call is a JSON object with name and {key}, this one is {_quote(json.dumps(value))}"
    fields = cast(Mapping[str, Any], value)
    name = fields.get("name")
    if not isinstance(name, str) or not name.strip():
        return "the call names no tool"
    other_key = {"arguments": "parameters", "parameters": "arguments"}[key]
    if key not in fields and other_key not in fields:
        return f"the call of {name} has no {key}; they are {{}} where none are needed"
    arguments = fields[key] if key in fields else fields[other_key]
    if not isinstance(arguments, Mapping):
        return f"the {key} of {name} must be a JSON object, they are {_quote(json.dumps(arguments))}"
    return Call(name, dict(cast(Mapping[str, Any], arguments)))


class CallSyntaxError(ValueError):
    """The text is not the JSON of a call; the message is a sentence for the policy."""


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise CallSyntaxError(f"{_quote(duplicate)} is given twice")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object_without_duplicates)


def _decode_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that begins at `start`, and the index of its end. The value can be written as JSON again."""
    try:
        value, end = _DECODER.raw_decode(text, start)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # no half characters, no infinity
    except CallSyntaxError as problem:
        raise CallSyntaxError(f"in the call {_quote(text)} {problem}") from problem
    except json.JSONDecodeError as problem:
        reason = f"{problem.msg} at character {problem.pos}"
        raise CallSyntaxError(f"the call {_quote(text)} is not JSON: {reason}") from problem
    except (ValueError, RecursionError) as problem:
        raise CallSyntaxError(f"the call {_quote(text)} is not JSON that can be read") from problem
    return value, end


def _decode_whole(text: str) -> Any:
    """The JSON value of a whole text."""
    stripped = text.strip()
    if not stripped:
        raise CallSyntaxError("the call is empty")
    value, end = _decode_json(stripped)
    if stripped[end:].strip():
        raise CallSyntaxError(f"the call {_quote(stripped)} is not JSON: it goes on at character {end}")
    return value


def _quote(text: str) -> str:
    """The text on one line, shortened, in quotes."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _MAX_QUOTED_CHARACTERS else line[: _MAX_QUOTED_CHARACTERS - 4] + " ...")


def _strip_line_breaks(text: str) -> str:
    """Remove the two line breaks that the template puts around each value."""
    return text.removeprefix("\n").removesuffix("\n")


def _argument_schema(tools: Tools, name: str, key: str) -> Mapping[str, Any]:
    for tool in tools:
        function = tool.get("function", {})
        if function.get("name") == name:
            return function.get("parameters", {}).get("properties", {}).get(key, {})
    return {}


def _schema_types(schema: Mapping[str, Any]) -> set[str]:
    declared: Any = schema.get("type")
    types: set[str] = {declared} if isinstance(declared, str) else set(cast(list[str], declared or []))
    for inner in cast(list[Mapping[str, Any]], [*schema.get("anyOf", ()), *schema.get("oneOf", ())]):
        types |= _schema_types(inner)
    return types


def _convert_value(value: str, schema: Mapping[str, Any]) -> Any:
    """Convert a value to a type that its schema allows; it stays a text if the schema allows one or it does not fit."""
    types = _schema_types(schema)
    if not types or "string" in types:
        return value
    stripped = value.strip()
    if stripped in _PYTHON_LITERALS:  # as the template writes them
        return _PYTHON_LITERALS[stripped]
    try:
        return _decode_whole(stripped)
    except CallSyntaxError:
        return value  # the tool reports the type that it expects


CallParser = Callable[[str, Tools], list[Call] | str]
_THINKING_MARKS = ("<think>", "</think>")
CALL_MARKS = ("<tool_call>", "</tool_call>")
_RESPONSE_MARKS = ("<tool_response>", "</tool_response>")
_FUNCTION_MARKS = ("<function=", "</function>", "<parameter=", "</parameter>")
PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True, slots=True)
class CallFormat:
    """The marks of one family of models. A mark is a text of one token or several."""

    name: str
    thinking_marks: tuple[str, str]
    call_marks: tuple[str, str] | None
    """None where calls have no marks: then the end of a turn is a call if it looks like one."""
    parse: CallParser
    """Parses the text of a call; returns a sentence where it is malformed."""
    answer_separator: str = ""
    """Joins the parts of an answer that calls separate."""
    other_marks: tuple[str, ...] = ()
    """Other marks that only the template and the policy may write."""
    end_tokens: tuple[str, ...] = ()
    """Tokens that end a turn, besides the template's."""

    @property
    def marks(self) -> tuple[str, ...]:
        return (*self.thinking_marks, *(self.call_marks or ()), *self.other_marks)


def _single_call(parse: Callable[[str, Tools], Call | str]) -> CallParser:
    """A parser for formats with one call between a pair of marks."""

    def parse_single(text: str, tools: Tools) -> list[Call] | str:
        result = parse(text, tools)
        return result if isinstance(result, str) else [result]

    return parse_single


LAB_FORMAT = CallFormat(
    "the lab", _THINKING_MARKS, ("<call>", "</call>"), _single_call(parse_word_call), answer_separator=" "
)
HERMES_FORMAT = CallFormat(
    "Hermes", _THINKING_MARKS, CALL_MARKS, _single_call(parse_json_call), other_marks=_RESPONSE_MARKS
)
QWEN35_FORMAT = CallFormat(
    "Qwen3.5",
    _THINKING_MARKS,
    CALL_MARKS,
    _single_call(parse_tag_call),
    other_marks=(*_RESPONSE_MARKS, *_FUNCTION_MARKS),
)
LLAMA_FORMAT = CallFormat(
    "Llama 3", _THINKING_MARKS, None, parse_bare_calls, other_marks=(PYTHON_TAG,), end_tokens=("<|eom_id|>",)
)


def detect_call_format(rendered_call: str, tool: str, argument: str) -> CallFormat | None:
    """The format of a template that rendered a call of `tool` with `argument` as `rendered_call`; None if unknown."""
    if (
        f"<function={tool}>" in rendered_call
        and f"<parameter={argument}>" in rendered_call
        and CALL_MARKS[0] in rendered_call
    ):
        return QWEN35_FORMAT
    if f'"name": "{tool}"' not in rendered_call:
        return None
    if CALL_MARKS[0] in rendered_call:
        return HERMES_FORMAT
    return LLAMA_FORMAT if '"parameters":' in rendered_call else None
