"""Finds one literal in a text, whatever stands inside it, and numbers by their value."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from sgcd.contrast.leakage.normalize import NormalizedText, is_word_char, list_decodings, normalize_text

_CURRENCIES = "usd eur gbp jpy chf cny inr cad aud nzd sek nok dkk pln brl krw rs kr us".split()
_CURRENCY_ALTERNATIVES = "|".join(_CURRENCIES)
_MAY_PRECEDE_NUMBER = re.compile(rf"(?:^|[\W_]|\b(?:{_CURRENCY_ALTERNATIVES}))$")
_MAY_FOLLOW_NUMBER = rf"(?![0-9]|[.,'_][0-9])(?=(?:{_CURRENCY_ALTERNATIVES})\b|[^\w]|_|$)"
_UNSPACED_NUMBER = re.compile(rf"([0-9]+(?:[.,'_][0-9]+)*){_MAY_FOLLOW_NUMBER}")
_SPACED_NUMBER = re.compile(rf"(?=([0-9]{{1,3}}(?:\s[0-9]{{3}})+(?:[.,][0-9]+)?){_MAY_FOLLOW_NUMBER})")
_GROUPED_BY_SEPARATOR = {
    mark: re.compile(rf"[0-9]{{1,3}}(?:{re.escape(mark)}[0-9]{{2,3}})*{re.escape(mark)}[0-9]{{3}}") for mark in ",.'_ "
}


def find_amounts(normalized: str) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Each number in a normalized text: start, stop and possible amounts."""
    for pattern in (_UNSPACED_NUMBER, _SPACED_NUMBER):
        for match in pattern.finditer(normalized):
            before = normalized[max(0, match.start() - 4) : match.start()]
            continues_number = before[-1:] and before[-1] in ".,'_" and before[-2:-1].isdecimal()
            if not continues_number and _MAY_PRECEDE_NUMBER.search(before) and (readings := possible_amounts(match[1])):
                yield match.start(1), match.end(1), readings


def possible_amounts(number: str) -> frozenset[str]:
    """The amounts that a number may denote, without thousands separators and trailing zeros.

    A number that begins with a zero is a code and has no amount.

    >>> sorted(possible_amounts("1,234")), sorted(possible_amounts("1.234,50")), sorted(possible_amounts("0042"))
    (['1.234', '1234'], ['1234.5'], [])
    """
    number = re.sub(r"\s", " ", number)
    if not re.fullmatch(r"[0-9](?:[0-9.,'_ ]*[0-9])?", number):
        return frozenset()
    separators = list(dict.fromkeys(re.findall(r"[^0-9]", number)))
    readings: list[tuple[str, str]] = []
    if not separators:
        readings.append((number, ""))
    for point in (".", ","):
        integer_part, point_found, fraction = number.rpartition(point)
        other_separators = [separator for separator in separators if separator != point]
        if (
            point_found
            and number.count(point) == 1
            and len(other_separators) <= 1
            and _without_separators(integer_part, other_separators) is not None
        ):
            readings.append((_without_separators(integer_part, other_separators) or "", fraction))
    if len(separators) == 1 and _GROUPED_BY_SEPARATOR[separators[0]].fullmatch(number):
        readings.append((number.replace(separators[0], ""), ""))
    return frozenset(
        _canonical_amount(integer_part, fraction)
        for integer_part, fraction in readings
        if integer_part == "0" or integer_part[0] != "0"
    )


def _without_separators(integer_part: str, separators: list[str]) -> str | None:
    """The integer part without thousands separators; None when a separator is misplaced."""
    if not separators:
        return integer_part if integer_part.isdecimal() else None
    return (
        integer_part.replace(separators[0], "")
        if _GROUPED_BY_SEPARATOR[separators[0]].fullmatch(integer_part)
        else None
    )


def _canonical_amount(integer_part: str, fraction: str) -> str:
    fraction = fraction.rstrip("0")
    return f"{integer_part}.{fraction}" if fraction else integer_part


_MIN_LETTERS_INSIDE_WORD = 12
"""A literal of at least this many letters is also found inside longer words, such as a key with a suffix."""
_MIN_LETTERS_FOR_GAPS = 6
"""A literal of at least this many letters (four when it has a digit) may have gaps between any two letters."""
_MARKUP_CHARS = "*_~`'\\"
"""Marks of emphasis and quotes, which may occur inside any literal."""
_MAX_GAP_SPACES, _MAX_GAP_CHARS = 40, 3
"""The longest gap inside a literal: white space, and other characters."""
_IS_ALNUM_ASCII = np.array([chr(code).isalnum() for code in range(128)])
_IS_VISIBLE_ASCII = np.array([not chr(code).isspace() and chr(code) not in _MARKUP_CHARS for code in range(128)])


@dataclass(frozen=True, slots=True)
class LiteralPattern:
    """A literal without the characters that a text may add or leave out."""

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
    has_digits: bool
    affixes: tuple[str, str]
    """Characters removed before and after the pattern. A match includes them when the text has them."""

    @classmethod
    def from_form(cls, form: str, literal: str) -> "LiteralPattern":
        searchable = SearchableText(NormalizedText(form))
        letters, positions = searchable.characters_at_level(0)
        has_digits = any(char.isdigit() for char in letters)
        allows_gaps = len(letters) >= (4 if has_digits else _MIN_LETTERS_FOR_GAPS)
        has_symbols = any(not is_word_char(char) and not char.isspace() and char not in _MARKUP_CHARS for char in form)
        level = 0 if len(letters) >= 3 and (allows_gaps or not has_symbols) else 1
        characters, positions = searchable.characters_at_level(level)
        if not characters:
            level, (characters, positions) = 2, searchable.characters_at_level(2)
        gap_indices = np.flatnonzero(np.diff(positions) > 1).tolist()
        gaps = {
            index: "".join(form[int(positions[index]) + 1 : int(positions[index + 1])].split()) for index in gap_indices
        }
        allows_letters_around = len(letters) >= _MIN_LETTERS_INSIDE_WORD and " " not in form
        affixes = form[: int(positions[0])], form[int(positions[-1]) + 1 :]
        return cls(
            literal,
            characters,
            level,
            allows_gaps,
            gaps,
            allows_letters_around or _joins_without_spaces(characters[0]),
            allows_letters_around or _joins_without_spaces(characters[-1]),
            has_digits,
            affixes,
        )


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

    def characters_at_level(self, level: int) -> tuple[str, NDArray[np.int64]]:
        """The characters that are compared at a level, and their indices."""
        if level not in self._levels:
            self._levels[level] = self._build_level(level)
        return self._levels[level]

    def find(self, pattern: LiteralPattern) -> Iterator[tuple[int, int]]:
        """The [start, stop) of each occurrence."""
        characters, positions = self.characters_at_level(pattern.level)
        size = len(pattern.characters)
        index = characters.find(pattern.characters)
        while index >= 0:
            start, stop = int(positions[index]), int(positions[index + size - 1]) + 1
            if self._is_separate_word(start, stop, pattern) and self._gaps_match(
                positions[index : index + size], pattern
            ):
                prefix, suffix = pattern.affixes
                if self.text.endswith(prefix, 0, start):
                    start -= len(prefix)
                if self.text.startswith(suffix, stop):
                    stop += len(suffix)
                yield start, stop
            index = characters.find(pattern.characters, index + 1)

    def _build_level(self, level: int) -> tuple[str, NDArray[np.int64]]:
        text = self.text
        if level == 2:
            return text, np.arange(len(text))
        if text.isascii():
            codes = np.frombuffer(text.encode(), np.uint8)
            visible_positions = np.flatnonzero((_IS_VISIBLE_ASCII if level else _IS_ALNUM_ASCII)[codes])
            return codes[visible_positions].tobytes().decode(), visible_positions
        kept_positions = [
            index for index, char in enumerate(text) if (_is_visible(char) if level else is_word_char(char))
        ]
        return "".join([text[index] for index in kept_positions]), np.array(kept_positions, np.int64)

    def _is_separate_word(self, start: int, stop: int, pattern: LiteralPattern) -> bool:
        """Whether neither end is inside a longer word. An underscore joins words, as in tool names, but not digits."""
        text = self.text
        before, after = start - 1, stop
        while not pattern.has_digits and before >= 0 and text[before] == "_":
            before -= 1
        while not pattern.has_digits and after < len(text) and text[after] == "_":
            after += 1
        starts_word = (
            pattern.may_follow_letter or not is_word_char(text[start]) or before < 0 or not is_word_char(text[before])
        )
        return starts_word and (
            pattern.may_precede_letter
            or not is_word_char(text[stop - 1])
            or after >= len(text)
            or not is_word_char(text[after])
        )

    def _gaps_match(self, positions: NDArray[np.int64], pattern: LiteralPattern) -> bool:
        """Whether the pattern accepts the gaps between the matched characters."""
        steps = np.diff(positions)
        gap_indices = np.flatnonzero(steps > 1).tolist()
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
