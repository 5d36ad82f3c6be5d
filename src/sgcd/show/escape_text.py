"""Make text safe to show: invisible characters and those that change direction are written out by number."""

from unicodedata import category

_NEWLINE_MARK = "↵\n"


def escape_text(text: str) -> str:
    """Keep line ends and tabs, and write every other invisible character as ⟨U+202E⟩.

    >>> escape_text("a" + chr(0x202E) + "b")
    'a⟨U+202E⟩b'
    """
    return text if text.isprintable() else "".join(map(_escape_char, text))


def escape_token(text: str) -> str:
    """Escape the text of a token, and mark its line ends."""
    return escape_text(text).replace("\n", _NEWLINE_MARK)


def _escape_char(char: str) -> str:
    if char in "\n\t" or char.isprintable() or category(char) == "Zs":
        return char
    return f"⟨U+{ord(char):04X}⟩"
