"""Readings of a text: escapes and encodings undone, camelCase split, spoken numbers and symbols as digits and signs."""

import re
from base64 import b32decode, b64decode
from binascii import Error
from collections.abc import Callable, Iterable
from functools import lru_cache
from html import unescape
from unicodedata import category
from urllib.parse import unquote_to_bytes

from sgcd.contrast.leakage.normalize import NormalizedText, stack_spans
from sgcd.contrast.leakage.spoken import find_spoken

_MAX_DEPTH = 3
"""The most nested layers of escapes that are decoded."""
_ESCAPE_SIGNS = "&%=\\"
"""Every escape begins with one of these."""
_ESCAPES = re.compile(
    r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});?"
    r"|(?:%[0-9a-f]{2})+|(?:=[0-9a-f]{2}){2,}"
    r"|(?:\\u[0-9a-f]{4})+|\\u\{[0-9a-f]{1,6}\}|\\U[0-9a-f]{8}|(?:\\x[0-9a-f]{2})+|\\[^\w\s]|\\[nrtbfv]",
    re.IGNORECASE,
)
_MARKUP_TAGS = re.compile(r"<!--.{0,200}?-->|</?[a-z][^<>]{0,80}>", re.IGNORECASE | re.DOTALL)
_BASE64_RUNS = re.compile(r"[A-Za-z0-9+/_-][A-Za-z0-9+/_-]{3,}={0,2}")
_BASE64_LINES = re.compile(r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{4,}+\r?\n){1,200}[A-Za-z0-9+/]{2,}={0,2}")
_BASE32_RUNS = re.compile(r"[A-Z2-7][A-Z2-7]{7,}={0,6}")
_HEX_RUNS = re.compile(
    r"[0-9a-fA-F][0-9a-fA-F](?:(?:[0-9a-fA-F]{2}){2,}|(?<![^\W_]..)([ :-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2})+\b)"
)
_BASE64URL_TO_BASE64 = str.maketrans("-_", "+/")
_ESCAPED_SPACES = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": "\f", "v": "\v"}
_HUMPS = re.compile(r"[A-Z](?:(?<=[a-z0-9].)|(?<=[A-Z].)(?=[a-z]))")
"""The first letters of the words in a camelCase name, without the first word's."""
_NEIGHBOURHOOD_CHARS = 100


def list_decodings(text: str) -> list[NormalizedText]:
    """The text itself, then each decoding that differs from it."""
    layers = remove_escapes(text)
    without_tags = [
        view
        for source in layers
        if "<" in source.text and (view := _replace_matches(source, _MARKUP_TAGS, lambda _: ""))
    ]
    decoded = [view for source in [*layers, *without_tags] if (view := _decode_runs(source))]
    decoded += [view for source in decoded if (view := _decode_runs(source))]
    return [
        *layers,
        *without_tags,
        *decoded,
        *(view for source in decoded if (view := _replace_matches(source, _MARKUP_TAGS, lambda _: ""))),
        *([written] if (written := _write_spoken(layers[-1])) else []),
    ]


def decode_fully(text: str) -> list[str]:
    """The text without any escapes, and the decoded base64 and hex in it."""
    innermost = remove_escapes(text)[-1]
    decoded = _decode_runs(innermost)
    return [innermost.text, *([decoded.text] if decoded else [])]


def remove_escapes(text: str) -> list[NormalizedText]:
    """The text itself, then the text with one, two and three layers of escapes decoded."""
    layers = [NormalizedText(text)]
    if not any(sign in text for sign in _ESCAPE_SIGNS):
        return layers
    while len(layers) <= _MAX_DEPTH and (undone := _replace_matches(layers[-1], _ESCAPES, _undo_escape)):
        layers.append(undone)
    return layers


def _write_spoken(source: NormalizedText) -> NormalizedText | None:
    """The text with camelCase names split, and symbols and digits for their words; None when that changes nothing.

    Only the neighbourhood of what changes is kept.
    """
    humps = [(*match.span(), f" {match[0]}") for match in _HUMPS.finditer(source.text)]
    spans = list[tuple[int, int, str]]()
    for span in sorted([*humps, *find_spoken(source.text)]):
        if spans and span[0] - spans[-1][1] > 2 * _NEIGHBOURHOOD_CHARS:
            spans.append((spans[-1][1] + _NEIGHBOURHOOD_CHARS, span[0] - _NEIGHBOURHOOD_CHARS, "\n"))
        spans.append(span)
    if not spans:
        return None
    before, after = spans[0][0] - _NEIGHBOURHOOD_CHARS, spans[-1][1] + _NEIGHBOURHOOD_CHARS
    cuts = (
        [(0, before, "\n")] if before > 0 else [],
        [(after, len(source.text), "\n")] if after < len(source.text) else [],
    )
    return _replace_spans(source, [*cuts[0], *spans, *cuts[1]])


def _replace_matches(
    source: NormalizedText, pattern: re.Pattern[str], replace_match: Callable[[str], str]
) -> NormalizedText | None:
    """The text with each match replaced; None when no match changes."""
    matches = [(*match.span(), replace_match(match[0])) for match in pattern.finditer(source.text)]
    return _replace_spans(source, matches)


def _replace_spans(source: NormalizedText, replacements: Iterable[tuple[int, int, str]]) -> NormalizedText | None:
    """The text with replacements for spans, which are in order and do not overlap; None when no span changes."""
    parts, position = list[str](), 0
    starts, stops = list[int](), list[int]()
    for start, stop, replacement in replacements:
        if replacement != source.text[start:stop] and start >= position:
            parts += [source.text[position:start], replacement]
            starts += [*range(position, start), *[start] * len(replacement)]
            stops += [*range(position + 1, start + 1), *[stop] * len(replacement)]
            position = stop
    if not parts:
        return None
    size = len(source.text)
    spans = stack_spans([*starts, *range(position, size)], [*stops, *range(position + 1, size + 1)])
    return NormalizedText("".join([*parts, source.text[position:]]), spans).rebase_onto(source)


def _undo_escape(escape: str) -> str:
    if escape[0] == "&":
        return unescape(escape if escape.endswith(";") else escape + ";")
    if escape[0] in "%=":
        return _decode_text(unquote_to_bytes(escape.replace("=", "%"))) or escape
    if escape[1] in "xX":
        return _decode_text(bytes.fromhex(escape.lower().replace("\\x", ""))) or escape
    if escape[1] in "uU":
        codes = [int(code, 16) for code in re.findall(r"[0-9a-f]+", escape.lower().replace("\\u", " "))]
        if max(codes) > 0x10FFFF:
            return escape
        joined = "".join(map(chr, codes)).encode("utf-16", "surrogatepass")
        return joined.decode("utf-16", "replace")
    return _ESCAPED_SPACES.get(escape[1].lower(), escape[1])


def _decode_runs(source: NormalizedText) -> NormalizedText | None:
    """The decoded runs of base64, base32 and hex that are text, one a line; None when there is none."""
    parts, starts, stops = list[str](), list[int](), list[int]()
    for pattern, sign, decode in _RUN_DECODERS:
        for match in pattern.finditer(source.text) if sign in source.text else ():
            if decoded := decode(match[0]):
                parts += [decoded, "\n"]
                starts += [match.start()] * (len(decoded) + 1)
                stops += [match.end()] * (len(decoded) + 1)
    return NormalizedText("".join(parts), stack_spans(starts, stops)).rebase_onto(source) if parts else None


@lru_cache(2**12)
def _decode_base64(run: str) -> str:
    run = "".join(run.split()).rstrip("=").translate(_BASE64URL_TO_BASE64)
    try:
        return _decode_text(b64decode(run + "=" * (-len(run) % 4), validate=True))
    except (Error, ValueError):
        return ""


def _decode_base32(run: str) -> str:
    run = run.rstrip("=")
    try:
        return _decode_text(b32decode(run + "=" * (-len(run) % 8)))
    except (Error, ValueError):
        return ""


def _decode_hex(run: str) -> str:
    return _decode_text(bytes.fromhex(re.sub("[ :-]", "", run)))


_RUN_DECODERS: tuple[tuple[re.Pattern[str], str, Callable[[str], str]], ...] = (
    (_BASE64_RUNS, "", _decode_base64),
    (_BASE64_LINES, "\n", _decode_base64),
    (_BASE32_RUNS, "", _decode_base32),
    (_HEX_RUNS, "", _decode_hex),
)
"""The patterns of runs, a sign that each of them has, and how a run is decoded."""


def _decode_text(data: bytes) -> str:
    """The bytes as UTF-8 text; empty when they are not text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    return text if all(char.isspace() or category(char) not in ("Cc", "Cn") for char in text) else ""
