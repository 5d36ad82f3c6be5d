"""A text as it reads once escapes, entities, tags and encodings are undone, with every character's place in it."""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Callable, Iterator
from html import unescape
from urllib.parse import unquote_to_bytes

from sgcd.contrast.fold import Folded

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
SPACES = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": "\f", "v": "\v"}


def views(text: str) -> list[Folded]:
    """The text itself, then every other reading of it that differs."""
    found = unescaped(text)
    bare = [view for seen in found if "<" in seen.text and (view := _replaced(seen, TAGS, lambda _: ""))]
    return [*found, *bare, *(view for seen in [*found, *bare] if (view := _decoded(seen)))]


def unescaped(text: str) -> list[Folded]:
    """The text itself, then without one layer of escapes after the other."""
    found = [Folded(text, None)]
    while len(found) <= DEPTH and (undone := _replaced(found[-1], ESCAPES, _undone)):
        found.append(undone)
    return found


def _replaced(seen: Folded, pattern: re.Pattern[str], change: Callable[[str], str]) -> Folded | None:
    """The text with every match changed; None when nothing is."""
    parts, origins, at = list[str](), list[tuple[int, int]](), 0
    for match in pattern.finditer(seen.text):
        new = change(match[0])
        if new != match[0]:
            parts += [seen.text[at : match.start()], new]
            origins += [(place, place + 1) for place in range(at, match.start())]
            origins += [match.span()] * len(new)
            at = match.end()
    if not parts:
        return None
    origins += [(place, place + 1) for place in range(at, len(seen.text))]
    return Folded("".join([*parts, seen.text[at:]]), origins).within(seen)


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
    parts, origins = list[str](), list[tuple[int, int]]()
    for start, stop, said in _said(seen.text):
        parts.append(said + "\n")
        origins += [(start, stop)] * (len(said) + 1)
    return Folded("".join(parts), origins).within(seen) if parts else None


def _said(text: str) -> Iterator[tuple[int, int, str]]:
    for match in RUNS.finditer(text):
        run = match[0].rstrip("=")
        try:
            data = b64decode(run.translate(str.maketrans("-_", "+/")) + "=" * (-len(run) % 4), validate=True)
        except (Error, ValueError):
            continue
        if said := _text(data):
            yield *match.span(), said
    for match in HEX.finditer(text):
        if said := _text(bytes.fromhex(match[0])):
            yield *match.span(), said


def _text(data: bytes) -> str:
    """Bytes as the text that they are; empty when they are none."""
    try:
        said = data.decode()
    except UnicodeDecodeError:
        return ""
    return said if all(char.isprintable() or char.isspace() for char in said) else ""
