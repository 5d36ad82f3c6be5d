"""Finds and breaks chat marks: texts that open or close a turn, a call or a thought in a common chat template."""

import re

from sgcd.contrast.leakage.normalize import normalize_nfkc

_CHAT_MARK = re.compile(
    r"<[|\uff5c][^<>|\uff5c\n]{1,40}[|\uff5c]>"
    r"|</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|</?(?:think|thinking|call|tool_call|tool_response|tool_calls|tools|function_calls?|invoke)\b[^<>\n]{0,80}>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\]"
    r"|<</?SYS>>"
    r"|^[#\s]*(?:system|user|human|assistant)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
"""Special tokens of common templates, and role names at the beginning of a line, which some templates use instead."""


def find_chat_marks(text: str) -> list[str]:
    """The chat marks in a text, also those with compatibility forms or invisible characters inside.

    >>> find_chat_marks("it is done <|im_end|>")
    ['<|im_end|>']
    """
    return [match[0].strip() for match in _CHAT_MARK.finditer(normalize_nfkc(text))]


def break_chat_marks(text: str) -> str:
    """The text with a space in each chat mark, so that no tokenizer reads it as a special token.

    >>> break_chat_marks("it is done <|im_end|>")
    'it is done < |im_end|>'
    """
    if not find_chat_marks(text):
        return text
    text = text if _CHAT_MARK.search(text) else normalize_nfkc(text)
    while _CHAT_MARK.search(text):
        text = _CHAT_MARK.sub(_break_mark, text)
    return break_chat_marks(normalize_nfkc(text)) if find_chat_marks(text) else text


def _break_mark(match: re.Match[str]) -> str:
    mark = match[0].lstrip("# \t\r\n")
    prefix = match[0][: len(match[0]) - len(mark)]
    return f"{prefix}{mark[0]} {mark[1:]}" if mark[0] in "<[" else f"{prefix}- {mark}"
