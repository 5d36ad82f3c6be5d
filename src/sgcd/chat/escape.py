"""Break marks in texts of tools, users and references, so that they cannot open or close a turn or a call."""

import re
from collections.abc import Iterable
from typing import Any


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
