"""A template that keeps every turn of the policy as it was, made around the model's own."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from json import dumps
from typing import Any, cast

from sgcd.errors import TemplateError
from sgcd.records import Message

PROBE = "probeprobe"  # stands for an assistant turn while the template is taken apart
SEEN = "seenseen"  # a word whose place in a rendered text is looked for
DATE = "26 Jul 2024"  # what a template is told that asks for the date: a prompt must not change overnight
PROBE_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "none",
        "parameters": {"type": "object", "properties": {"probe_key": {"type": "string"}}, "required": ["probe_key"]},
    },
}
TURN: Message = {"role": "assistant", "content": PROBE}
USER: Message = {"role": "user", "content": "u"}
TOOL_SEEN: Message = {"role": "tool", "content": SEEN}
USER_SEEN: Message = {"role": "user", "content": SEEN}
EARLIER: tuple[Message, ...] = (  # a longer past, and a turn that begins with thinking
    USER,
    {"role": "assistant", "content": "first"},
    {"role": "user", "content": "v"},
    {"role": "assistant", "content": "<think>\nsecond\n</think>\n\n" + PROBE},
)
Render = Callable[[Sequence[Message], Sequence[Mapping[str, Any]], bool], str]


def own_template(tokenizer: Any, name: str) -> str:
    """The template that came with a tokenizer; where there are several, the one for tools."""
    found: Any = tokenizer.chat_template
    if isinstance(found, Mapping):
        several = cast(Mapping[str, Any], found)
        found = several.get("tool_use", several.get("default"))
    if not isinstance(found, str) or not found:
        raise TemplateError(f"{name}: it has no chat template; add chat_template.jinja to the policy's folder")
    return found


def renderer(tokenizer: Any, template: str, name: str) -> Render:
    """Messages, tools, whether the next turn is opened -> text. Whatever a template raises is one clear line."""

    def render(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], opens: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(messages),
                    tools=[*tools] or None,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=opens,
                )
            )
        except Exception as problem:  # templates raise what they like: jinja's errors, and Python's from inside
            roles = [message["role"] for message in messages]
            raise TemplateError(
                f"{name}: the chat template refuses messages with the roles {roles}: {problem}"
            ) from problem

    return render


def tail(render: Render, before: Sequence[Message], after: Sequence[Message], opens: bool, name: str) -> str:
    """All that a template writes after the turn PROBE, which ends `before`, when `after` follows it."""
    text = render([*before, *after], (PROBE_TOOL,), opens)
    _, mark, rest = text.partition(PROBE)
    if not mark:
        raise TemplateError(
            f"{name}: the template does not show an assistant turn as it was once messages follow it, so the suffix "
            "for the next turn cannot be derived; use a template that renders history"
        )
    return rest


def preserving(tokenizer: Any, stock: str, name: str) -> str:
    """The template of a policy: `stock`, and around it what keeps every turn as it was; `stock` itself if it does."""
    if "unfinished" in stock:  # the lab's, or one that was made here: it knows a turn that was cut off
        return stock
    render = renderer(tokenizer, stock, name)
    known = {
        "SYSTEM": _shows(render, [{"role": "system", "content": SEEN}, USER]),
        "TOOLS": _shows(render, [USER], "probe_tool"),
        "TOOL_ROLE": _shows(render, [USER, TURN, TOOL_SEEN]),
        "USERS": _shows(render, [USER, USER_SEEN]),
    }
    _refuse_what_looks_back(render, known["TOOL_ROLE"], name)
    parts = {
        "END": dumps(_end(tokenizer, tail(render, [USER, TURN], (), False, name), name)),
        **{fact: str(flag).lower() for fact, flag in known.items()},
        "CLOCK": f"{{%- macro strftime_now(format) -%}}{DATE}{{%- endmacro -%}}\n" if "strftime_now" in stock else "",
        "STOCK": stock.removesuffix("\n"),
    }
    whole = (files("sgcd.chat") / "preserving.jinja").read_text(encoding="utf-8")
    for part, text in parts.items():
        whole = whole.replace(f"@{part}@", text, 1)
    return whole


def _shows(render: Render, messages: Sequence[Message], word: str = SEEN) -> bool:
    try:
        return word in render(messages, (PROBE_TOOL,), True)
    except TemplateError:
        return False


def _refuse_what_looks_back(render: Render, knows_tool_role: bool, name: str) -> None:
    """What follows a turn must not depend on what is in it, nor on what came before it."""
    for after in ([USER_SEEN], [TOOL_SEEN] if knows_tool_role else [], []):
        for opens in (True, False):
            told = {tail(render, before, after, opens, name) for before in ([USER, TURN], EARLIER)}
            if len(told) > 1:
                raise TemplateError(
                    f"{name}: what the template writes after an assistant turn depends on the turns before it, so the "
                    "suffix for the next turn cannot be derived; use a template that renders history as it was"
                )


def _end(tokenizer: Any, closing: str, name: str) -> str:
    """The one token with which a turn ends; what the template writes behind it belongs to what follows."""
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"][:1]
    end = str(tokenizer.decode(ids, skip_special_tokens=False))
    if not end or not closing.startswith(end):
        raise TemplateError(f"{name}: the template closes an assistant turn with {closing!r}; expected a special token")
    return end
