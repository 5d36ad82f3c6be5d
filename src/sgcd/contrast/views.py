"""A text as it reads once escapes, entities, tags and encodings are undone, with every character's place in it."""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from functools import lru_cache
from html import unescape
from unicodedata import category
from urllib.parse import unquote_to_bytes

from sgcd.contrast.fold import Folded, places

DEPTH = 3
"""So many encodings inside each other are undone."""
ESCAPES = re.compile(
    r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});?"
    r"|(?:%[0-9a-f]{2})+"
    r"|(?:\\u[0-9a-f]{4})+|\\u\{[0-9a-f]{1,6}\}|\\U[0-9a-f]{8}|(?:\\x[0-9a-f]{2})+|\\[^\w\s]|\\[nrtbfv]",
    re.IGNORECASE,
)
TAGS = re.compile(r"<!--.{0,200}?-->|</?[a-z][^<>]{0,80}>", re.IGNORECASE | re.DOTALL)
RUNS = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")
HEX = re.compile(r"(?:[0-9a-fA-F]{2}){3,}")
_URLS = str.maketrans("-_", "+/")
SPACES = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": "\f", "v": "\v"}


def views(text: str) -> list[Folded]:
    """The text itself, then every other reading of it that differs."""
    found = unescaped(text)
    bare = [view for seen in found if "<" in seen.text and (view := _replaced(seen, TAGS, lambda _: ""))]
    said = [view for seen in [*found, *bare] if (view := _decoded(seen))]
    return [*found, *bare, *said, *(view for seen in said if (view := _replaced(seen, TAGS, lambda _: "")))]


def deepest(text: str) -> list[str]:
    """What a text says once all is undone, and what its runs of base64 and hex say."""
    last = unescaped(text)[-1]
    said = _decoded(last)
    return [last.text, *([said.text] if said else [])]


def unescaped(text: str) -> list[Folded]:
    """The text itself, then without one layer of escapes after the other."""
    found = [Folded(text)]
    while len(found) <= DEPTH and (undone := _replaced(found[-1], ESCAPES, _undone)):
        found.append(undone)
    return found


def _replaced(seen: Folded, pattern: re.Pattern[str], change: Callable[[str], str]) -> Folded | None:
    """The text with every match changed; None when nothing is."""
    parts, at = list[str](), 0
    starts, stops = list[int](), list[int]()
    for match in pattern.finditer(seen.text):
        new = change(match[0])
        if new != match[0]:
            start, stop = match.span()
            parts += [seen.text[at:start], new]
            starts += [*range(at, start), *[start] * len(new)]
            stops += [*range(at + 1, start + 1), *[stop] * len(new)]
            at = stop
    if not parts:
        return None
    size = len(seen.text)
    all_places = places([*starts, *range(at, size)], [*stops, *range(at + 1, size + 1)])
    return Folded("".join([*parts, seen.text[at:]]), all_places).within(seen)


def _undone(escape: str) -> str:
    if escape[0] == "&":
        return unescape(escape if escape.endswith(";") else escape + ";")
    if escape[0] == "%":
        return _text(unquote_to_bytes(escape)) or escape
    if escape[1] in "xX":
        return _text(bytes.fromhex(escape.lower().replace("\\x", ""))) or escape
    if escape[1] in "uU":
        codes = [int(code, 16) for code in re.findall(r"[0-9a-f]+", escape.lower().replace("\\u", " "))]
        if max(codes) > 0x10FFFF:
            return escape
        joined = "".join(map(chr, codes)).encode("utf-16", "surrogatepass")
        return joined.decode("utf-16", "replace")
    return SPACES.get(escape[1].lower(), escape[1])


def _decoded(seen: Folded) -> Folded | None:
    """What runs of base64 and hex say, as far as it is text; each run stands on a line of its own."""
    parts, starts, stops = list[str](), list[int](), list[int]()
    for pattern, read in ((RUNS, _base64), (HEX, _hex)):
        for match in pattern.finditer(seen.text):
            if said := read(match[0]):
                parts += [said, "\n"]
                starts += [match.start()] * (len(said) + 1)
                stops += [match.end()] * (len(said) + 1)
    return Folded("".join(parts), places(starts, stops)).within(seen) if parts else None


@lru_cache(2**12)
def _base64(run: str) -> str:
    run = run.rstrip("=").translate(_URLS)
    try:
        return _text(b64decode(run + "=" * (-len(run) % 4), validate=True))
    except (Error, ValueError):
        return ""


def _hex(run: str) -> str:
    return _text(bytes.fromhex(run))


def _text(data: bytes) -> str:
    """Bytes as the text that they are; empty when they are none."""
    try:
        said = data.decode()
    except UnicodeDecodeError:
        return ""
    return said if all(char.isspace() or category(char) not in ("Cc", "Cn") for char in said) else ""
