"""Writes a turn that is given in parts (thinking, text and calls) as the text that a policy would have sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json import dumps
from re import escape
from typing import Any

from sgcd.chat.call_formats import CALL_MARKS, HERMES_FORMAT, LAB_FORMAT, PYTHON_TAG, CallFormat
from sgcd.chat.template import PROBE_TEXT, PROBE_USER, RenderFn
from sgcd.errors import TemplateError
from sgcd.records import Call, ParsedTurn

_ArgumentsForm = Callable[[Call], Any]
_ARGUMENTS_FORMS: tuple[_ArgumentsForm, ...] = (
    lambda call: dict(call.arguments),
    lambda call: dumps(dict(call.arguments), ensure_ascii=False),
)
"""Arguments as templates expect them: most as an object, some as its JSON."""


@dataclass(frozen=True, slots=True)
class TurnWriter:
    """Writes turns as one template and one format of calls have them; `TurnParser` reads them again."""

    render: RenderFn
    call_format: CallFormat
    end: str
    """The token that ends a turn."""
    opens_thinking: bool
    """Whether the template opens the thinking, so that a turn only closes it."""

    def write(self, turn: ParsedTurn) -> str:
        """The turn's text, without its end: thinking, then the text, then the calls as the model's template does."""
        if self.call_format is LAB_FORMAT:
            thinking = f"<think> {turn.thinking} </think>" if turn.thinking else ""
            return " ".join(" ".join([thinking, turn.text, *map(_write_word_call, turn.calls)]).split())
        return self._write_thinking(turn.thinking) + turn.text + self._write_calls(turn.calls, bool(turn.text))

    def response_template(self, start: str) -> dict[str, Any] | None:
        """How `transformers serve` parses a turn behind `start`; None where it knows the format by the model."""
        if self.call_format is not HERMES_FORMAT or self.opens_thinking:
            return None
        (thinking, end_of_thinking), (call, end_of_call) = self.call_format.thinking_marks, CALL_MARKS
        call_fields = {"content": "json", "transform": {"type": "function", "function": "{content}"}}
        return {
            "defaults": {"role": "assistant"},
            "start_anchor": start,
            "fields": {
                "reasoning_content": {"open": thinking, "close": end_of_thinking, "content": "text"},
                "tool_calls": {
                    "open_pattern": rf"\s*{escape(call)}",
                    "close": end_of_call,
                    "repeats": True,
                    **call_fields,
                },
                "content": {"close_pattern": rf"\s*{escape(self.end)}", "content": "text"},
            },
        }

    def _write_thinking(self, thinking: str) -> str:
        opening, closing = self.call_format.thinking_marks
        if not thinking and not self.opens_thinking:
            return ""
        return ("" if self.opens_thinking else f"{opening}\n") + (thinking and f"{thinking}\n") + f"{closing}\n\n"

    def _write_calls(self, calls: Sequence[Call], has_text: bool) -> str:
        """The calls as they follow a text, or begin the turn."""
        if not calls:
            return ""
        written = self._render_calls(calls)
        if not written:
            one_by_one = [self._render_calls([call]) for call in calls]  # a template may render one call a turn
            written = "; ".join(one_by_one) if all(one_by_one) else "".join(map(write_json_call, calls))
        if not has_text:
            return written.lstrip("\n")
        return written if self.call_format.call_marks else PYTHON_TAG + written

    def _render_calls(self, calls: Sequence[Call]) -> str:
        """The calls as the model's own template writes them behind a text; empty where it writes none."""
        for form in _ARGUMENTS_FORMS:
            native_calls = [
                {"id": "probecall", "type": "function", "function": {"name": call.name, "arguments": form(call)}}
                for call in calls
            ]
            message = {"role": "assistant", "content": PROBE_TEXT, "tool_calls": native_calls}
            try:
                text = self.render([PROBE_USER, message], (), False)
                opening = self.render([PROBE_USER], (), True)
            except TemplateError:
                continue
            if not all(call.name in text for call in calls):
                continue
            before, probe, after = text.partition(PROBE_TEXT)
            body = after if probe else before.removeprefix(opening)  # Llama's leaves out a text before a call
            return body.rpartition(self.end)[0]
        return ""


def _write_word_call(call: Call) -> str:
    arguments = " ".join(f"{name} {value}" for name, value in call.arguments.items())
    return f"<call> {call.name} {arguments} </call>"


def write_json_call(call: Call) -> str:
    """A call as the instruction shows it that lists the tools where the template cannot."""
    content = dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
    return f"\n<tool_call>\n{content}\n</tool_call>"
