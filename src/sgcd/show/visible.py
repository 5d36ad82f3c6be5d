"""Text as it can be seen: characters that hide, turn the direction of others or break a page are named."""

from unicodedata import category

LINE = "↵\n"


def visible(text: str) -> str:
    """Line ends and tabs are kept, and all else that leaves no mark is written as ⟨U+202E⟩.

    >>> visible("a" + chr(0x202E) + "b")
    'a⟨U+202E⟩b'
    """
    return text if text.isprintable() else "".join(map(_seen, text))


def token(text: str) -> str:
    """A token's text: its line ends leave a mark too."""
    return visible(text).replace("\n", LINE)


def short(text: str, limit: int) -> str:
    """At most about `limit` characters, cut from the middle; the cut says how much it took."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit - limit * 2 // 3
    return f"{text[:head]} […{len(text) - limit:,} characters are not shown…] {text[-tail:]}"


def _seen(char: str) -> str:
    if char in "\n\t" or char.isprintable() or category(char) == "Zs":
        return char
    return f"⟨U+{ord(char):04X}⟩"
