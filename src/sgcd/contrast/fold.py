"""Text as literals are compared in it: compatibility forms, case and kinds of quotes make no difference."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import category, combining, normalize

QUOTES = "\"'`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a"
_STRAIGHT = str.maketrans(dict.fromkeys(QUOTES, "'"))
_PIECE = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text for comparison, and where each of its characters comes from."""

    text: str
    origins: Sequence[tuple[int, int]] | None
    """For each character the half-open stretch of the original; None when they stand at the same places."""

    def origin(self, start: int, stop: int) -> tuple[int, int]:
        """The stretch of the original that a stretch of the folded text comes from."""
        return (start, stop) if self.origins is None else (self.origins[start][0], self.origins[stop - 1][1])


def fold(text: str) -> Folded:
    r"""Two texts that NFKC and case-folding make equal are equal here. What cannot be seen (Unicode's Cf) is left out.

    Decomposed rather than composed forms are kept: those never join characters of different origin.

    >>> fold("\u201cStraße\u201d").text
    "'strasse'"
    """
    if text.isascii():
        return Folded(text.lower().translate(_STRAIGHT), None)
    folded, origins = list[str](), list[tuple[int, int]]()
    for start, stop in _pieces(text):
        piece = text[start:stop]
        if piece.isascii():
            folded.append(piece.lower().translate(_STRAIGHT))
            origins.extend((at, at + 1) for at in range(start, stop))
        else:
            folded.append(_folded(piece))
            origins.extend([(start, stop)] * len(folded[-1]))
    return Folded("".join(folded), origins)


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


def _folded(piece: str) -> str:
    seen = "".join(char for char in piece.translate(_STRAIGHT) if category(char) != "Cf")
    for _ in range(2):  # folding the case of a compatibility form may leave another
        seen = normalize("NFKD", normalize("NFKD", seen).casefold())
    return seen.translate(_STRAIGHT)
