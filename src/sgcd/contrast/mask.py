"""Literals that a reference must not carry: replaced before it is written, looked for when it comes back."""

import re
from collections.abc import Sequence

PLACEHOLDER = "hidden"


def mask(text: str, literals: Sequence[str]) -> str:
    """The text with every literal, as a word of its own and in whatever case, replaced by a placeholder."""
    known = sorted({literal for literal in literals if literal.strip()}, key=len, reverse=True)
    if not known:
        return text
    pattern = "|".join(re.escape(literal) for literal in known)
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", PLACEHOLDER, text, flags=re.IGNORECASE)
