"""Text as literals are compared in it: normalized, and with escapes and encodings undone."""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from unicodedata import category, combining, decimal, normalize
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

CharSpans = NDArray[np.int64]

QUOTES = "\"'`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a"
_STRAIGHT = str.maketrans(dict.fromkeys(QUOTES, "'"))
_PIECE = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")
_INVISIBLE_CHARS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0" + "\u0332\u0335\u0336"
"""Invisible characters outside Unicode's category Cf: joiners, fillers, and lines through or under letters."""
_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
LOOKALIKES = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u0131\u0251\u0261",
    "abekmhopctyxsijhdqw" + "abeikvoptux" + "iag",
)
"""Lower-case Cyrillic and Greek letters that look like Latin ones. Literal and text are both translated."""


@dataclass(frozen=True, slots=True)
class NormalizedText:
    """A normalized or decoded text, with the source of each character."""

    text: str
    source_spans: CharSpans | None = None
    """[start, stop) in the original for each character; None when all indices are equal."""

    def source_span(self, start: int, stop: int) -> tuple[int, int]:
        """The span of the original for a span of this text."""
        return (
            (start, stop)
            if self.source_spans is None
            else (int(self.source_spans[start, 0]), int(self.source_spans[stop - 1, 1]))
        )

    def rebase_onto(self, outer: "NormalizedText") -> "NormalizedText":
        """This text, made from the text of `outer`, with spans in the original of `outer`."""
        if outer.source_spans is None:
            return self
        if self.source_spans is None:
            return NormalizedText(self.text, outer.source_spans)
        first, last = outer.source_spans[self.source_spans[:, 0], 0], outer.source_spans[self.source_spans[:, 1] - 1, 1]
        return NormalizedText(self.text, np.stack([first, last], axis=1))


def stack_spans(starts: Sequence[int], stops: Sequence[int]) -> CharSpans:
    """Spans as an array, one for each character."""
    return np.stack([np.array(starts, np.int64), np.array(stops, np.int64)], axis=1)


def normalize_text(text: str) -> NormalizedText:
    r"""The text in lower case, decomposed (NFKD), with straight quotes and without invisible characters.

    Texts that are equal under NFKC and case folding are equal here. Decomposed forms never join characters from
    different places, so each character keeps its span.

    >>> normalize_text("\u201cStraße\u201d").text
    "'strasse'"
    """
    if text.isascii():
        return NormalizedText(text.lower().translate(_STRAIGHT))
    normalized_pieces, starts, stops = list[str](), list[int](), list[int]()
    for start, stop in _split_pieces(text):
        piece = text[start:stop]
        if piece.isascii():
            normalized_pieces.append(piece.lower().translate(_STRAIGHT))
            starts.extend(range(start, stop))
            stops.extend(range(start + 1, stop + 1))
        else:
            normalized_pieces.append(_normalize_piece(piece))
            starts += [start] * len(normalized_pieces[-1])
            stops += [stop] * len(normalized_pieces[-1])
    return NormalizedText("".join(normalized_pieces), stack_spans(starts, stops))


def normalize_nfkc(text: str) -> str:
    """The text in NFKC without invisible characters. The case stays."""
    if text.isascii():
        return text
    return "".join(char for char in normalize("NFKC", text) if not _is_invisible(char))


@lru_cache(2**16)
def is_word_char(char: str) -> bool:
    """Whether the character is a letter, a digit or a combining mark."""
    return char.isalnum() or (not char.isascii() and category(char)[0] == "M")


def _split_pieces(text: str) -> list[tuple[int, int]]:
    """Spans that normalize independently: runs of ASCII, and each other character with its combining marks."""
    pieces: list[tuple[int, int]] = []
    for match in _PIECE.finditer(text):
        start, stop = match.span()
        if pieces and combining(text[start]) and not text[pieces[-1][0] : pieces[-1][1]].isascii():
            pieces[-1] = (pieces[-1][0], stop)
        else:
            pieces.append((start, stop))
    return pieces


@lru_cache(2**16)
def _normalize_piece(piece: str) -> str:
    visible = "".join(char for char in piece.translate(_STRAIGHT) if not _is_invisible(char))
    for _ in range(2):  # case folding may leave another compatibility form
        visible = normalize("NFKD", normalize("NFKD", visible).casefold())
    visible = "".join(str(decimal(char)) if char.isdecimal() else char for char in visible if not _is_invisible(char))
    return visible.translate(_STRAIGHT).translate(LOOKALIKES)


@lru_cache(2**16)
def _is_invisible(char: str) -> bool:
    return category(char) == "Cf" or char in _INVISIBLE_CHARS or any(ord(char) in selectors for selectors in _SELECTORS)


_MAX_DEPTH = 3
"""The most nested layers of escapes that are decoded."""
_ESCAPES = re.compile(
    r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});?"
    r"|(?:%[0-9a-f]{2})+"
    r"|(?:\\u[0-9a-f]{4})+|\\u\{[0-9a-f]{1,6}\}|\\U[0-9a-f]{8}|(?:\\x[0-9a-f]{2})+|\\[^\w\s]|\\[nrtbfv]",
    re.IGNORECASE,
)
_MARKUP_TAGS = re.compile(r"<!--.{0,200}?-->|</?[a-z][^<>]{0,80}>", re.IGNORECASE | re.DOTALL)
_BASE64_RUNS = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")
_HEX_RUNS = re.compile(r"(?:[0-9a-fA-F]{2}){3,}")
_BASE64URL_TO_BASE64 = str.maketrans("-_", "+/")
_ESCAPED_SPACES = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": "\f", "v": "\v"}


def list_decodings(text: str) -> list[NormalizedText]:
    """The text itself, then each decoding that differs from it."""
    layers = remove_escapes(text)
    without_tags = [
        view
        for source in layers
        if "<" in source.text and (view := _replace_matches(source, _MARKUP_TAGS, lambda _: ""))
    ]
    decoded = [view for source in [*layers, *without_tags] if (view := _decode_runs(source))]
    return [
        *layers,
        *without_tags,
        *decoded,
        *(view for source in decoded if (view := _replace_matches(source, _MARKUP_TAGS, lambda _: ""))),
    ]


def decode_fully(text: str) -> list[str]:
    """The text without any escapes, and the decoded base64 and hex in it."""
    innermost = remove_escapes(text)[-1]
    decoded = _decode_runs(innermost)
    return [innermost.text, *([decoded.text] if decoded else [])]


def remove_escapes(text: str) -> list[NormalizedText]:
    """The text itself, then the text with one, two and three layers of escapes decoded."""
    layers = [NormalizedText(text)]
    while len(layers) <= _MAX_DEPTH and (undone := _replace_matches(layers[-1], _ESCAPES, _undo_escape)):
        layers.append(undone)
    return layers


def _replace_matches(
    source: NormalizedText, pattern: re.Pattern[str], replace_match: Callable[[str], str]
) -> NormalizedText | None:
    """The text with each match replaced; None when no match changes."""
    parts, position = list[str](), 0
    starts, stops = list[int](), list[int]()
    for match in pattern.finditer(source.text):
        replacement = replace_match(match[0])
        if replacement != match[0]:
            start, stop = match.span()
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
    if escape[0] == "%":
        return _decode_text(unquote_to_bytes(escape)) or escape
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
    """The decoded runs of base64 and hex that are text, one a line; None when there is none."""
    parts, starts, stops = list[str](), list[int](), list[int]()
    for pattern, decode in ((_BASE64_RUNS, _decode_base64), (_HEX_RUNS, _decode_hex)):
        for match in pattern.finditer(source.text):
            if decoded := decode(match[0]):
                parts += [decoded, "\n"]
                starts += [match.start()] * (len(decoded) + 1)
                stops += [match.end()] * (len(decoded) + 1)
    return NormalizedText("".join(parts), stack_spans(starts, stops)).rebase_onto(source) if parts else None


@lru_cache(2**12)
def _decode_base64(run: str) -> str:
    run = run.rstrip("=").translate(_BASE64URL_TO_BASE64)
    try:
        return _decode_text(b64decode(run + "=" * (-len(run) % 4), validate=True))
    except (Error, ValueError):
        return ""


def _decode_hex(run: str) -> str:
    return _decode_text(bytes.fromhex(run))


def _decode_text(data: bytes) -> str:
    """The bytes as UTF-8 text; empty when they are not text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    return text if all(char.isspace() or category(char) not in ("Cc", "Cn") for char in text) else ""
