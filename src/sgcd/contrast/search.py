"""One literal in one folded text: spaces, breaks and markup inside it make no difference, words around it do."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.fold import Folded, fold, lettered
from sgcd.contrast.views import views

LONG = 12
"""A literal of so many letters is found inside longer words too: a key with something glued to it is still a key."""
LOOSE = 6
"""Letters of a literal that may have spaces or other marks between any two of them; with a digit, four are enough."""
MARKUP = "*_~`'\\"
"""What may stand inside any literal: marks of emphasis and quotes."""
BLANK, REST = 40, 3
"""Of a gap inside a literal: so much white space at most, and so many other characters."""
_LETTERS = np.array([chr(code).isalnum() for code in range(128)])
_SEEN = np.array([not chr(code).isspace() and chr(code) not in MARKUP for code in range(128)])


@dataclass(frozen=True, slots=True)
class Wanted:
    """A literal as it is searched for: bare of all that may be missing or added."""

    literal: str
    """The one that it stands for."""
    bare: str
    level: int
    """What is left of it and of the text: 0 letters and digits, 1 all that is visible, 2 everything."""
    loose: bool
    gaps: Mapping[int, str]
    """After which of its characters something was left out, and what, but for white space; a literal that is not loose
    needs something there."""
    opens: bool
    """Whether a letter may stand right before it."""
    closes: bool
    digits: bool
    ends: tuple[str, str]
    """What the bare literal lost before and behind; taken along where the text has it."""

    @classmethod
    def of(cls, form: str, literal: str) -> "Wanted":
        whole = Stream(Folded(form))
        letters, places = whole.level(0)
        digits = any(char.isdigit() for char in letters)
        loose = len(letters) >= (4 if digits else LOOSE)
        symbols = any(not lettered(char) and not char.isspace() and char not in MARKUP for char in form)
        level = 0 if len(letters) >= 3 and (loose or not symbols) else 1
        bare, places = whole.level(level)
        if not bare:
            level, (bare, places) = 2, whole.level(2)
        wide = np.flatnonzero(np.diff(places) > 1).tolist()
        gaps = {at: "".join(form[int(places[at]) + 1 : int(places[at + 1])].split()) for at in wide}
        free = len(letters) >= LONG and " " not in form
        ends = form[: int(places[0])], form[int(places[-1]) + 1 :]
        return cls(literal, bare, level, loose, gaps, free or _glued(bare[0]), free or _glued(bare[-1]), digits, ends)


@lru_cache(maxsize=32)
def streams(text: str) -> "tuple[Stream, ...]":
    """Every reading of a text, ready to be searched."""
    return tuple(Stream(fold(view.text).within(view)) for view in views(text))


class Stream:
    """A folded text, bare of what may stand inside literals; at each level made when it is first asked for."""

    def __init__(self, folded: Folded) -> None:
        self.folded = folded
        self.text = folded.text
        self._levels: dict[int, tuple[str, NDArray[np.int64]]] = {}

    def level(self, number: int) -> tuple[str, NDArray[np.int64]]:
        """The characters that count at a level, and where they stand."""
        if number not in self._levels:
            self._levels[number] = self._made(number)
        return self._levels[number]

    def find(self, wanted: Wanted) -> Iterator[tuple[int, int]]:
        """Where it stands in the text, every time."""
        bare, places = self.level(wanted.level)
        size = len(wanted.bare)
        at = bare.find(wanted.bare)
        while at >= 0:
            start, stop = int(places[at]), int(places[at + size - 1]) + 1
            if self._alone(start, stop, wanted) and self._held(places[at : at + size], wanted):
                before, behind = wanted.ends
                start -= len(before) * self.text.endswith(before, 0, start)
                stop += len(behind) * self.text.startswith(behind, stop)
                yield start, stop
            at = bare.find(wanted.bare, at + 1)

    def _made(self, number: int) -> tuple[str, NDArray[np.int64]]:
        text = self.text
        if number == 2:
            return text, np.arange(len(text))
        if text.isascii():
            codes = np.frombuffer(text.encode(), np.uint8)
            places = np.flatnonzero((_SEEN if number else _LETTERS)[codes])
            return codes[places].tobytes().decode(), places
        kept = [at for at, char in enumerate(text) if (_visible(char) if number else lettered(char))]
        return "".join([text[at] for at in kept]), np.array(kept, np.int64)

    def _alone(self, start: int, stop: int, wanted: Wanted) -> bool:
        """Neither end is inside a longer word. A low line joins words, as in names of tools, but no digits."""
        text = self.text
        before, after = start - 1, stop
        while not wanted.digits and before >= 0 and text[before] == "_":
            before -= 1
        while not wanted.digits and after < len(text) and text[after] == "_":
            after += 1
        opens = wanted.opens or not lettered(text[start]) or before < 0 or not lettered(text[before])
        return opens and (
            wanted.closes or not lettered(text[stop - 1]) or after >= len(text) or not lettered(text[after])
        )

    def _held(self, places: NDArray[np.int64], wanted: Wanted) -> bool:
        """Whether what stands between its characters may stand there."""
        steps = np.diff(places)
        wide = np.flatnonzero(steps > 1).tolist()
        gaps = {at: self.text[int(places[at]) + 1 : int(places[at + 1])] for at in wide}
        if not wanted.loose and not wanted.gaps.keys() <= gaps.keys():
            return False
        strange = {at: gap for at, gap in gaps.items() if "".join(gap.split()) != wanted.gaps.get(at)}
        if all(_blank(gap) and (wanted.loose or at in wanted.gaps) for at, gap in strange.items()):
            return True
        if all(_blank(gap) and not gap.strip(MARKUP) for gap in strange.values()):
            return True
        spelt = len(steps) >= 2 and len(gaps) == len(steps) and len(set(gaps.values())) == 1
        return spelt and len(next(iter(gaps.values())).strip()) <= 1


def _visible(char: str) -> bool:
    return not char.isspace() and char not in MARKUP


def _blank(gap: str) -> bool:
    blank = sum(char.isspace() for char in gap)
    return blank <= BLANK and len(re.sub(r"[\s*_~`'\\]", "", gap)) <= REST


def _glued(char: str) -> bool:
    """Letters of scripts that are written without spaces between words, or with particles joined to them."""
    return not char.isascii() and category(char) == "Lo"
