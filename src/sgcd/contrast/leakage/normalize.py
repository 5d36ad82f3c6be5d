"""Normalizes text to compare literals: lower case, decomposed, without invisible characters; keeps the places."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category, combining, decimal, normalize

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
