"""Finds literals in a text, whatever stands inside them: letters are compared first, then what is between them."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.leakage.decodings import list_decodings
from sgcd.contrast.leakage.forms import LiteralForm, literal_forms
from sgcd.contrast.leakage.normalize import NormalizedText, is_word_char, normalize_text

_MIN_LETTERS_INSIDE_WORD = 12
"""A literal of at least this many letters is also found inside longer words, such as a key with a suffix."""
_MIN_LETTERS_FOR_GAPS = 6
"""A literal of at least this many letters (four when it has a digit) may have gaps between any two letters."""
_MIN_LETTERS_FOR_PLURAL = 4
_PLURAL_ENDING = re.compile(r"(?:s|es)(?![^\W_])")
_MARKUP_CHARS = "*_~`'\\"
"""Marks of emphasis and quotes, which may occur inside any literal."""
_MAX_GAP_SPACES, _MAX_GAP_CHARS = 40, 3
"""The longest gap inside a literal: white space, and other characters."""
_IS_ALNUM_ASCII = np.array([chr(code).isalnum() for code in range(128)])
_IS_VISIBLE_ASCII = np.array([not chr(code).isspace() and chr(code) not in _MARKUP_CHARS for code in range(128)])
_START_CHARS = 3
"""`PatternIndex` looks for this many characters first."""
_NUM_HASHES = 2**16
_ROT13 = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")


@dataclass(frozen=True, slots=True)
class LiteralPattern:
    """A form of a literal without the characters that a text may add or leave out."""

    literal: str
    """The key in `Literals.placeholders`."""
    characters: str
    level: int
    """Which characters of literal and text are compared: 0 letters and digits, 1 all visible ones, 2 all."""
    allows_gaps: bool
    gaps: Mapping[int, str]
    """The removed characters, without white space, by the index of the character before them. A literal without
    `allows_gaps` needs a gap in the text at these places."""
    may_follow_letter: bool
    """Whether a letter may precede the literal directly."""
    may_precede_letter: bool
    allows_plural: bool
    affixes: tuple[str, str]
    """Characters removed before and after the pattern. A match includes them when the text has them."""

    @classmethod
    def from_form(cls, form: LiteralForm, literal: str) -> "LiteralPattern":
        text, is_exact = form.text, form.is_exact
        letter_positions = [index for index, char in enumerate(text) if is_word_char(char)]
        visible_positions = [index for index, char in enumerate(text) if _is_visible(char)]
        num_letters, has_digits = len(letter_positions), any(char.isdigit() for char in text)
        allows_gaps = not is_exact and num_letters >= (4 if has_digits else _MIN_LETTERS_FOR_GAPS)
        has_symbols = not {*visible_positions} <= {*letter_positions}
        level = 0 if not is_exact and num_letters >= 3 and (allows_gaps or not has_symbols) else 1
        positions = visible_positions if level else letter_positions
        if not positions:
            level, positions = 2, list(range(len(text)))
        characters = "".join(text[index] for index in positions)
        gaps = {
            index: "".join(text[position + 1 : next_position].split())
            for index, (position, next_position) in enumerate(pairwise(positions))
            if next_position > position + 1
        }
        allows_letters_around = not is_exact and num_letters >= _MIN_LETTERS_INSIDE_WORD and " " not in text
        return cls(
            literal,
            characters,
            level,
            allows_gaps,
            gaps,
            allows_letters_around or _joins_without_spaces(characters[0]),
            allows_letters_around or _joins_without_spaces(characters[-1]),
            allows_plural=not is_exact and num_letters >= _MIN_LETTERS_FOR_PLURAL,
            affixes=(text[: positions[0]], text[positions[-1] + 1 :]),
        )


@lru_cache(2**13)
def build_patterns(literal: str) -> tuple[LiteralPattern, ...]:
    """The patterns of all forms of a literal."""
    patterns = [LiteralPattern.from_form(form, literal) for form in literal_forms(literal)]
    moved = _move_letters(patterns[0], literal) if patterns[0].allows_gaps else []
    return (*patterns, *moved)


def _move_letters(pattern: LiteralPattern, literal: str) -> list[LiteralPattern]:
    """The pattern backwards, with each word backwards, and in rot13. A short literal has none: mia is aim."""
    letters = pattern.characters
    words_backwards = "".join(word[::-1] for word in re.findall(r"[^\W_]+", literal))
    moved = dict.fromkeys([letters[::-1], words_backwards, letters.translate(_ROT13)])
    return [
        replace(pattern, characters=characters, gaps={}, allows_plural=False, affixes=("", ""))
        for characters in moved
        if len(characters) == len(letters) and characters != letters
    ]


class PatternIndex:
    """Patterns by their first characters. One look at a text finds where any of them may begin."""

    def __init__(self, patterns: Sequence[LiteralPattern]) -> None:
        self.short_patterns = [pattern for pattern in patterns if len(pattern.characters) < _START_CHARS]
        self._by_start = defaultdict[tuple[int, str], list[LiteralPattern]](list)
        for pattern in patterns:
            self._by_start[pattern.level, pattern.characters[:_START_CHARS]].append(pattern)
        self._is_start = {level: np.zeros(_NUM_HASHES, np.bool_) for level in {pattern.level for pattern in patterns}}
        for level, start in self._by_start:
            self._is_start[level][_hash_starts(start)] = True

    @property
    def levels(self) -> Sequence[int]:
        return list(self._is_start)

    def find_candidates(
        self, characters: str, hashes: NDArray[np.int32], level: int
    ) -> Iterator[tuple[int, LiteralPattern]]:
        """Each pattern whose characters occur, with their index."""
        for index in self._is_start[level][hashes].nonzero()[0].tolist():
            for pattern in self._by_start.get((level, characters[index : index + _START_CHARS]), ()):
                if characters.startswith(pattern.characters, index):
                    yield index, pattern
        for pattern in self.short_patterns:
            index = characters.find(pattern.characters) if pattern.level == level else -1
            while index >= 0:
                yield index, pattern
                index = characters.find(pattern.characters, index + 1)


def _hash_starts(characters: str) -> NDArray[np.int32]:
    """A number for each place with `_START_CHARS` characters after it."""
    if characters.isascii():
        codes = np.frombuffer(characters.encode(), np.uint8).astype(np.int32)
    else:
        codes = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), np.int32)
    return (codes[:-2] * 961 + codes[1:-1] * 31 + codes[2:]) & (_NUM_HASHES - 1)


@lru_cache(maxsize=32)
def build_searchable_texts(text: str) -> "tuple[SearchableText, ...]":
    """All decodings of a text, normalized."""
    return tuple(SearchableText(normalize_text(view.text).rebase_onto(view)) for view in list_decodings(text))


class SearchableText:
    """A normalized text, searchable at each `LiteralPattern.level`. A level is built on first use."""

    def __init__(self, normalized: NormalizedText) -> None:
        self.normalized = normalized
        self.text = normalized.text
        self._levels: dict[int, tuple[str, NDArray[np.int64]]] = {}
        self._hashes: dict[int, NDArray[np.int32]] = {}

    def characters_at_level(self, level: int) -> tuple[str, NDArray[np.int64]]:
        """The characters that are compared at a level, and their indices."""
        if level not in self._levels:
            self._levels[level] = self._build_level(level)
        return self._levels[level]

    def find(self, index: PatternIndex) -> Iterator[tuple[int, int, LiteralPattern]]:
        """The [start, stop) of each occurrence."""
        for level in index.levels:
            characters, positions = self.characters_at_level(level)
            if level not in self._hashes:
                self._hashes[level] = _hash_starts(characters)
            for first, pattern in index.find_candidates(characters, self._hashes[level], level):
                if span := self._match_at(positions[first : first + len(pattern.characters)], pattern):
                    yield *span, pattern

    def _match_at(self, positions: NDArray[np.int64], pattern: LiteralPattern) -> tuple[int, int] | None:
        """The span of a pattern whose characters are at these positions; None when more than they must match."""
        start, stop = int(positions[0]), int(positions[-1]) + 1
        if pattern.allows_plural and (ending := _PLURAL_ENDING.match(self.text, stop)):
            stop = ending.end()
        if not self._is_separate_word(start, stop, pattern) or not self._gaps_match(positions, pattern):
            return None
        prefix, suffix = pattern.affixes
        if self.text.endswith(prefix, 0, start):
            start -= len(prefix)
        if self.text.startswith(suffix, stop):
            stop += len(suffix)
        return start, stop

    def _build_level(self, level: int) -> tuple[str, NDArray[np.int64]]:
        text = self.text
        if level == 2:
            return text, np.arange(len(text))
        if text.isascii():
            codes = np.frombuffer(text.encode(), np.uint8)
            visible_positions = (_IS_VISIBLE_ASCII if level else _IS_ALNUM_ASCII)[codes].nonzero()[0]
            return codes[visible_positions].tobytes().decode(), visible_positions
        kept_positions = [
            index for index, char in enumerate(text) if (_is_visible(char) if level else is_word_char(char))
        ]
        return "".join([text[index] for index in kept_positions]), np.array(kept_positions, np.int64)

    def _is_separate_word(self, start: int, stop: int, pattern: LiteralPattern) -> bool:
        """Whether neither end is inside a longer word. An underscore stands between words."""
        text = self.text
        starts_word = pattern.may_follow_letter or start == 0 or not is_word_char(text[start - 1])
        ends_word = pattern.may_precede_letter or stop == len(text) or not is_word_char(text[stop])
        return (starts_word or not is_word_char(text[start])) and (ends_word or not is_word_char(text[stop - 1]))

    def _gaps_match(self, positions: NDArray[np.int64], pattern: LiteralPattern) -> bool:
        """Whether the pattern accepts the gaps between the matched characters."""
        if positions[-1] - positions[0] == len(positions) - 1:
            return pattern.allows_gaps or not pattern.gaps
        steps = positions[1:] - positions[:-1]
        gap_indices = (steps > 1).nonzero()[0].tolist()
        gaps = {index: self.text[int(positions[index]) + 1 : int(positions[index + 1])] for index in gap_indices}
        if not pattern.allows_gaps and not pattern.gaps.keys() <= gaps.keys():
            return False
        unexpected_gaps = {index: gap for index, gap in gaps.items() if "".join(gap.split()) != pattern.gaps.get(index)}
        if all(
            _is_small_gap(gap) and (pattern.allows_gaps or index in pattern.gaps)
            for index, gap in unexpected_gaps.items()
        ):
            return True
        if all(_is_small_gap(gap) and not gap.strip(_MARKUP_CHARS) for gap in unexpected_gaps.values()):
            return True
        is_spelled_out = len(steps) >= 2 and len(gaps) == len(steps) and len(set(gaps.values())) == 1
        return is_spelled_out and len(next(iter(gaps.values())).strip()) <= 1


def _is_visible(char: str) -> bool:
    return not char.isspace() and char not in _MARKUP_CHARS


def _is_small_gap(gap: str) -> bool:
    num_spaces = sum(char.isspace() for char in gap)
    return num_spaces <= _MAX_GAP_SPACES and len(re.sub(r"[\s*_~`'\\]", "", gap)) <= _MAX_GAP_CHARS


def _joins_without_spaces(char: str) -> bool:
    """Whether the letter belongs to a script without spaces between words, or with particles joined to words."""
    return not char.isascii() and category(char) == "Lo"
