"""How families of models mark thinking and calls, and how a dialect is recognised by what its template writes."""

from collections.abc import Callable
from dataclasses import dataclass

from sgcd.chat.calls import Tools, parse_bare, parse_json, parse_tags, parse_words
from sgcd.records import Call

Parse = Callable[[str, Tools], list[Call] | str]
THINKING = ("<think>", "</think>")
TAGS = ("<tool_call>", "</tool_call>")
RESPONSE = ("<tool_response>", "</tool_response>")
FUNCTION = ("<function=", "</function>", "<parameter=", "</parameter>")
PYTHON = "<|python_tag|>"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of models marks thinking and calls. A mark is a text: one token or several."""

    name: str
    thinking: tuple[str, str]
    call: tuple[str, str] | None
    """None where calls have no marks of their own: what a turn says last is one when it looks like one."""
    parse: Parse
    """From the text of a call to what it calls, or to a sentence that says what is wrong with it."""
    between: str = ""
    """What joins the stretches of an answer that calls stood between."""
    others: tuple[str, ...] = ()
    """Further marks that only the template and the policy may write."""
    ends: tuple[str, ...] = ()
    """Tokens, besides the template's, with which such a policy ends its turn."""

    @property
    def marks(self) -> tuple[str, ...]:
        return (*self.thinking, *(self.call or ()), *self.others)


def _one(parse: Callable[[str, Tools], Call | str]) -> Parse:
    """Between its marks stands one call."""

    def parsed(text: str, tools: Tools) -> list[Call] | str:
        found = parse(text, tools)
        return found if isinstance(found, str) else [found]

    return parsed


LAB = Dialect("the lab", THINKING, ("<call>", "</call>"), _one(parse_words), between=" ")
HERMES = Dialect("Hermes", THINKING, TAGS, _one(parse_json), others=RESPONSE)
TAGGED = Dialect("Qwen3.5", THINKING, TAGS, _one(parse_tags), others=(*RESPONSE, *FUNCTION))
LLAMA = Dialect("Llama 3", THINKING, None, parse_bare, others=(PYTHON,), ends=("<|eom_id|>",))


def recognised(written: str, tool: str, argument: str) -> Dialect | None:
    """The dialect of a template that wrote `written` for a call of `tool` with `argument`, if it is a known one."""
    if f"<function={tool}>" in written and f"<parameter={argument}>" in written and TAGS[0] in written:
        return TAGGED
    if f'"name": "{tool}"' not in written:
        return None
    if TAGS[0] in written:
        return HERMES
    return LLAMA if '"parameters":' in written else None
