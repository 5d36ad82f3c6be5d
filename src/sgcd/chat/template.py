"""Build a chat template that renders every turn of the policy unchanged, around the model's own template."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from json import dumps
from typing import Any, cast

from sgcd.errors import TemplateError
from sgcd.records import Message

PROBE_TEXT = "probeprobe"  # stands for an assistant turn while the template is taken apart
MARKER_TEXT = "seenseen"  # a word whose place in a rendered text is looked for
_FIXED_DATE = "26 Jul 2024"  # what a template is told that asks for the date: a prompt must not change overnight
_PROBE_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "none",
        "parameters": {"type": "object", "properties": {"probe_key": {"type": "string"}}, "required": ["probe_key"]},
    },
}
_TOOL_INSTRUCTION = """# Tools

Each of these functions can be called:
<tools>
{tools}
</tools>

A call is one JSON object between two marks, several calls are several of them. An example:
<tool_call>
{call}
</tool_call>"""
"""What lists the tools where a template cannot: `{tools}` are their schemas, `{call}` is a call of the first one."""
PROBE_TURN: Message = {"role": "assistant", "content": PROBE_TEXT}
PROBE_USER: Message = {"role": "user", "content": "u"}
_PROBE_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "probecall", "type": "function", "function": {"name": "probe_call", "arguments": {}}}],
}
_MARKER_TOOL: Message = {"role": "tool", "content": MARKER_TEXT}
MARKER_USER: Message = {"role": "user", "content": MARKER_TEXT}
_LONGER_HISTORY: tuple[Message, ...] = (  # a longer past, and a turn that begins with thinking
    PROBE_USER,
    {"role": "assistant", "content": "first"},
    {"role": "user", "content": "v"},
    {"role": "assistant", "content": "<think>\nsecond\n</think>\n\n" + PROBE_TEXT},
)
RenderFn = Callable[[Sequence[Message], Sequence[Mapping[str, Any]], bool], str]


def stock_template(tokenizer: Any, name: str) -> str:
    """The template of a tokenizer; where it has several, the one for tools."""
    template: Any = tokenizer.chat_template
    if isinstance(template, Mapping):
        templates = cast(Mapping[str, Any], template)
        template = templates.get("tool_use", templates.get("default"))
    if not isinstance(template, str) or not template:
        raise TemplateError(f"{name}: it has no chat template; add chat_template.jinja to the policy's folder")
    return template


def build_renderer(tokenizer: Any, template: str, name: str) -> RenderFn:
    """Make a function that renders messages. Whatever the template raises becomes a `TemplateError` of one line."""

    def render(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(messages),
                    tools=[*tools] or None,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
        except Exception as problem:  # templates raise what they like: jinja's errors, and Python's from inside
            roles = [message["role"] for message in messages]
            raise TemplateError(
                f"{name}: the chat template refuses messages with the roles {roles}: {problem}"
            ) from problem

    return render


def render_after_turn(
    render: RenderFn, before: Sequence[Message], after: Sequence[Message], *, add_generation_prompt: bool, name: str
) -> str:
    """The text that a template writes after the probe turn, which ends `before`, when `after` follows."""
    text = render([*before, *after], (_PROBE_TOOL,), add_generation_prompt)
    _, probe, suffix = text.partition(PROBE_TEXT)
    if not probe:
        raise TemplateError(
            f"{name}: the template does not show an assistant turn as it was once messages follow it, so the suffix "
            "for the next turn cannot be derived; use a template that renders history"
        )
    return suffix


def build_preserving_template(tokenizer: Any, stock: str, name: str, tool_instruction: str | None = None) -> str:
    """Wrap `stock` so that every turn is rendered unchanged; returns `stock` itself where it already does that.

    `tool_instruction` lists the tools instead of `_TOOL_INSTRUCTION`; it is refused where it would not be used.
    """
    if "unfinished" in stock:  # the lab's, or one that was made here: it knows a turn that was cut off
        if tool_instruction is not None and _quote(tool_instruction) not in stock:
            raise TemplateError(
                f"policy.tool_instruction: the template of {name} has another one, with which it was trained; "
                "leave the key out"
            )
        return stock
    render = build_renderer(tokenizer, stock, name)
    abilities = {
        "SYSTEM": _renders_word(render, [{"role": "system", "content": MARKER_TEXT}, PROBE_USER]),
        "TOOLS": _renders_word(render, [PROBE_USER], "probe_tool"),
        "CALLS": _renders_word(render, [PROBE_USER, _PROBE_CALL], "probe_call"),
        "TOOL_ROLE": _renders_word(render, [PROBE_USER, PROBE_TURN, _MARKER_TOOL]),
        "USERS": _renders_word(render, [PROBE_USER, MARKER_USER]),
    }
    if tool_instruction is not None and abilities["TOOLS"]:
        raise TemplateError(
            f"policy.tool_instruction: the template of {name} lists the tools itself, so the text would not be used; "
            "leave the key out"
        )
    _check_suffix_is_fixed(render, abilities["TOOL_ROLE"], name)
    closing = render_after_turn(render, [PROBE_USER, PROBE_TURN], (), add_generation_prompt=False, name=name)
    replacements = {
        "END": dumps(_find_end_token(tokenizer, closing, name)),
        "INSTRUCTION": _quote(_TOOL_INSTRUCTION if tool_instruction is None else tool_instruction),
        **{ability: str(flag).lower() for ability, flag in abilities.items()},
        "CLOCK": f"{{%- macro strftime_now(format) -%}}{_FIXED_DATE}{{%- endmacro -%}}\n"
        if "strftime_now" in stock
        else "",
        "STOCK": stock.removesuffix("\n"),
    }
    template = (files("sgcd.chat") / "preserving.jinja").read_text(encoding="utf-8")
    for placeholder, text in replacements.items():
        template = template.replace(f"@{placeholder}@", text, 1)
    return template


def _quote(text: str) -> str:
    """The text as a literal of a template."""
    return dumps(text, ensure_ascii=False)


def _renders_word(render: RenderFn, messages: Sequence[Message], word: str = MARKER_TEXT) -> bool:
    try:
        return word in render(messages, (_PROBE_TOOL,), True)
    except TemplateError:
        return False


def _check_suffix_is_fixed(render: RenderFn, knows_tool_role: bool, name: str) -> None:
    """Refuse a template whose text after a turn depends on that turn or on earlier ones."""
    for after in ([MARKER_USER], [_MARKER_TOOL] if knows_tool_role else [], []):
        for add_generation_prompt in (True, False):
            suffixes = {
                render_after_turn(render, before, after, add_generation_prompt=add_generation_prompt, name=name)
                for before in ([PROBE_USER, PROBE_TURN], _LONGER_HISTORY)
            }
            if len(suffixes) > 1:
                raise TemplateError(
                    f"{name}: what the template writes after an assistant turn depends on the turns before it, so the "
                    "suffix for the next turn cannot be derived; use a template that renders history as it was"
                )


def _find_end_token(tokenizer: Any, closing: str, name: str) -> str:
    """The token that ends a turn: the first of `closing`; the rest belongs to the next message."""
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"][:1]
    end = str(tokenizer.decode(ids, skip_special_tokens=False))
    if not end or not closing.startswith(end):
        raise TemplateError(f"{name}: the template closes an assistant turn with {closing!r}; expected a special token")
    return end


class MarkEscaper:
    """Puts a space after the first character of every mark."""

    def __init__(self, marks: Iterable[str]) -> None:
        self.marks = tuple(sorted({mark for mark in marks if len(mark.strip()) > 1}, key=len, reverse=True))
        self._pattern = re.compile("|".join(re.escape(mark) for mark in self.marks) or r"(?!)")

    def __call__(self, text: str) -> str:
        return self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def collect_marks(tokenizer: Any, template: str) -> set[str]:
    """Special tokens, and added tokens that look like marks or occur in the template.

    Other added tokens are plain text: Gemma's vocabulary has runs of spaces and HTML tags as added tokens.
    """
    marks = {str(token) for token in tokenizer.all_special_tokens}
    for token in tokenizer.added_tokens_decoder.values():
        text = str(token.content)
        if token.special or text.startswith("<|") or (text.strip() == text and len(text) > 2 and text in template):
            marks.add(text)
    return marks
