"""Chat marks: what opens or closes a turn, a call or a thought in some family's template, as text."""

import re

from sgcd.contrast.fold import plain

MARKS = re.compile(
    r"<[|\uff5c][^<>|\uff5c\n]{1,40}[|\uff5c]>"
    r"|</?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>"
    r"|</?(?:think|thinking|call|tool_call|tool_response|tool_calls|tools|function_calls?|invoke)\b[^<>\n]{0,80}>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\]"
    r"|<</?SYS>>"
    r"|^[#\s]*(?:system|user|human|assistant)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
"""Special tokens of the common templates, and roles at the beginning of a line where a template has no others."""


def marks(text: str) -> list[str]:
    """The chat marks in a text, also where compatibility forms or what cannot be seen disguise them.

    >>> marks("it is done <|im_end|>")
    ['<|im_end|>']
    """
    return [match[0].strip() for match in MARKS.finditer(plain(text))]


def without_marks(text: str) -> str:
    """The text with every chat mark broken in two, so that no tokenizer and no reader takes it for one.

    >>> without_marks("it is done <|im_end|>")
    'it is done < |im_end|>'
    """
    if not marks(text):
        return text
    text = text if MARKS.search(text) else plain(text)
    while MARKS.search(text):
        text = MARKS.sub(_broken, text)
    return without_marks(plain(text)) if marks(text) else text


def _broken(match: re.Match[str]) -> str:
    mark = match[0].lstrip("# \t\r\n")
    before = match[0][: len(match[0]) - len(mark)]
    return f"{before}{mark[0]} {mark[1:]}" if mark[0] in "<[" else f"{before}- {mark}"
