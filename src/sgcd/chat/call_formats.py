"""Call formats of model families (marks of thinking and calls), and their detection from a template."""

from collections.abc import Callable
from dataclasses import dataclass

from sgcd.chat.parse_calls import Tools, parse_bare_calls, parse_json_call, parse_tag_call, parse_word_call
from sgcd.records import Call

CallParser = Callable[[str, Tools], list[Call] | str]
_THINKING_MARKS = ("<think>", "</think>")
_CALL_MARKS = ("<tool_call>", "</tool_call>")
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
    "Hermes", _THINKING_MARKS, _CALL_MARKS, _single_call(parse_json_call), other_marks=_RESPONSE_MARKS
)
QWEN35_FORMAT = CallFormat(
    "Qwen3.5",
    _THINKING_MARKS,
    _CALL_MARKS,
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
        and _CALL_MARKS[0] in rendered_call
    ):
        return QWEN35_FORMAT
    if f'"name": "{tool}"' not in rendered_call:
        return None
    if _CALL_MARKS[0] in rendered_call:
        return HERMES_FORMAT
    return LLAMA_FORMAT if '"parameters":' in rendered_call else None
