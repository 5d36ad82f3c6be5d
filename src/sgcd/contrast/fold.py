"""Text as literals are compared in it: compatibility forms, case, quotes and look-alikes make no difference."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category, combining, decimal, normalize

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

QUOTES = "\"'`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a"
_STRAIGHT = str.maketrans(dict.fromkeys(QUOTES, "'"))
_PIECE = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0" + "\u0332\u0335\u0336"
"""Beside Unicode's Cf: joiners and fillers without a shape, and lines through or under letters."""
_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
LOOKS = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u0131\u0251\u0261",
    "abekmhopctyxsijhdqw" + "abeikvoptux" + "iag",
)
"""Small letters of Cyrillic and Greek that look like Latin ones; both sides of a comparison go through it."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A text for comparison, and where each of its characters comes from."""

    text: str
    origins: Places | None = None
    """For each character the half-open stretch of the original; None when they stand at the same places."""

    def origin(self, start: int, stop: int) -> tuple[int, int]:
        """The stretch of the original that a stretch of the folded text comes from."""
        return (start, stop) if self.origins is None else (int(self.origins[start, 0]), int(self.origins[stop - 1, 1]))

    def within(self, outer: "Folded") -> "Folded":
        """The same text, where this one was made from the text of `outer`: as it comes from the original."""
        if outer.origins is None:
            return self
        if self.origins is None:
            return Folded(self.text, outer.origins)
        first, last = outer.origins[self.origins[:, 0], 0], outer.origins[self.origins[:, 1] - 1, 1]
        return Folded(self.text, np.stack([first, last], axis=1))


def places(starts: Sequence[int], stops: Sequence[int]) -> Places:
    """Stretches, one for each character."""
    return np.stack([np.array(starts, np.int64), np.array(stops, np.int64)], axis=1)


def fold(text: str) -> Folded:
    r"""Two texts that NFKC and case-folding make equal are equal here. What cannot be seen (Unicode's Cf) is left out.

    Decomposed rather than composed forms are kept: those never join characters of different origin.

    >>> fold("\u201cStraße\u201d").text
    "'strasse'"
    """
    if text.isascii():
        return Folded(text.lower().translate(_STRAIGHT))
    folded, starts, stops = list[str](), list[int](), list[int]()
    for start, stop in _pieces(text):
        piece = text[start:stop]
        if piece.isascii():
            folded.append(piece.lower().translate(_STRAIGHT))
            starts.extend(range(start, stop))
            stops.extend(range(start + 1, stop + 1))
        else:
            folded.append(_folded(piece))
            starts += [start] * len(folded[-1])
            stops += [stop] * len(folded[-1])
    return Folded("".join(folded), places(starts, stops))


def plain(text: str) -> str:
    """Compatibility forms as the letters they stand for, and nothing that cannot be seen; case stays as it is."""
    if text.isascii():
        return text
    return "".join(char for char in normalize("NFKC", text) if not _unseen(char))


@lru_cache(2**16)
def lettered(char: str) -> bool:
    """A letter, a digit or a mark upon one: what a word is made of."""
    return char.isalnum() or (not char.isascii() and category(char)[0] == "M")


def _pieces(text: str) -> list[tuple[int, int]]:
    """Stretches that fold independently: plain ASCII, and every other character with the marks that follow it."""
    pieces: list[tuple[int, int]] = []
    for match in _PIECE.finditer(text):
        start, stop = match.span()
        if pieces and combining(text[start]) and not text[pieces[-1][0] : pieces[-1][1]].isascii():
            pieces[-1] = (pieces[-1][0], stop)
        else:
            pieces.append((start, stop))
    return pieces


@lru_cache(2**16)
def _folded(piece: str) -> str:
    seen = "".join(char for char in piece.translate(_STRAIGHT) if not _unseen(char))
    for _ in range(2):  # folding the case of a compatibility form may leave another
        seen = normalize("NFKD", normalize("NFKD", seen).casefold())
    seen = "".join(str(decimal(char)) if char.isdecimal() else char for char in seen if not _unseen(char))
    return seen.translate(_STRAIGHT).translate(LOOKS)


@lru_cache(2**16)
def _unseen(char: str) -> bool:
    return category(char) == "Cf" or char in _UNSEEN or any(ord(char) in some for some in _SELECTORS)
