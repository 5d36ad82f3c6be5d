"""Text as it can be seen: characters that hide, turn the direction of others or break a page are named."""

from unicodedata import category

_NEWLINE_MARK = "↵\n"


def escape_text(text: str) -> str:
    """Line ends and tabs are kept, and all else that leaves no mark is written as ⟨U+202E⟩.

    >>> visible("a" + chr(0x202E) + "b")
    'a⟨U+202E⟩b'
    """
    return text if text.isprintable() else "".join(map(_escape_char, text))


def escape_token(text: str) -> str:
    """A token's text: its line ends leave a mark too."""
    return escape_text(text).replace("\n", _NEWLINE_MARK)


def _escape_char(char: str) -> str:
    if char in "\n\t" or char.isprintable() or category(char) == "Zs":
        return char
    return f"⟨U+{ord(char):04X}⟩"
