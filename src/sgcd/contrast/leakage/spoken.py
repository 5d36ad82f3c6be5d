"""Numbers and symbols in words: "four double one" is 411, "mia [at] example dot com" is an address."""

import re
from functools import lru_cache

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth"
).split()
_SMALL_NUMBERS = {
    **{word: number for number, word in enumerate(_UNITS)},
    **{word: number for number, word in enumerate(_ORDINALS, start=1)},
    "oh": 0,
    "nought": 0,
    "nil": 0,
}
_TENS_NUMBERS = {
    form: 10 * number for number, word in enumerate(_TENS, start=2) for form in (word, word.removesuffix("y") + "ieth")
}
_SIZES = {"hundred": 100, "thousand": 1000, "million": 10**6}
_REPEATS = {"double": 2, "triple": 3}
_NUMBER_NAMES = frozenset([*_SMALL_NUMBERS, *_TENS_NUMBERS, *_SIZES, *_REPEATS])
_WORD = "|".join(sorted(_NUMBER_NAMES, key=lambda name: (-len(name), name)))
_ORDINAL = re.compile(r"(?:first|second|third|th)$")
_NUMBER_WORDS = re.compile(rf"\b(?:{_WORD})(?:[\s-]{{1,3}}(?:and\s{{1,3}})?(?:{_WORD})){{0,60}}\b", re.IGNORECASE)

_SYMBOLS = {"dot": ".", "underscore": "_", "dash": "-", "hyphen": "-", "plus": "+", "at": "@"}
_BEFORE_HOST = r"(?=[\s\])}>]{1,2}[\w-]{1,60}(?:\.|[\s\[({<]{1,2}dot[\s\])}>]))"
_SPOKEN_SYMBOLS = re.compile(
    rf"[\s\[({{<]\s?(?:dot|underscore|dash|hyphen|plus|at{_BEFORE_HOST})\s?[\s\])}}>]", re.IGNORECASE
)
"""Names of symbols between spaces or brackets. `at` is one before the name of a host."""
_NAMES = _NUMBER_NAMES.union(_SYMBOLS)
_ASCII_SEPARATORS = str.maketrans({code: " " for code in range(128) if not chr(code).isalnum()})


def find_spoken(text: str) -> list[tuple[int, int, str]]:
    """The spans of number words and of names of symbols, with the digits and signs that they stand for.

    >>> find_spoken("mia at example dot com , one hundred and two")
    [(3, 7, '@'), (14, 19, '.'), (25, 44, '102')]
    """
    names = _NAMES.intersection(text.lower().translate(_ASCII_SEPARATORS).split()) if text.isascii() else _NAMES
    found = list[tuple[int, int, str]]()
    if not names.isdisjoint(_SYMBOLS):
        found += [(*match.span(), _write_symbol(match[0])) for match in _SPOKEN_SYMBOLS.finditer(text)]
    if number_names := names & _NUMBER_NAMES:
        position = 0
        for word in _compile_words(number_names).finditer(text):
            if word.start() >= position and (match := _NUMBER_WORDS.match(text, word.start())):
                found.append((*match.span(), _write_number(match[0])))
                position = match.end()
    return sorted(found)


@lru_cache(2**8)
def _compile_words(words: frozenset[str]) -> re.Pattern[str]:
    """A pattern of whole words in any case."""
    return re.compile(rf"(?<![^\W_])(?ai:{'|'.join(sorted(words))})(?![A-Za-z])")


def _write_number(words: str) -> str:
    """Number words as digits. With hundred or thousand they add up; otherwise they follow each other.

    >>> _write_number("one hundred and twenty-one"), _write_number("fourth nineteen eighty-seven")
    ('121', '4 1987')
    """
    numbers: list[list[str]] = [[]]
    for name in re.split(r"[\s-]+", words.lower()):
        if name != "and":
            numbers[-1].append(name)
        if _ORDINAL.search(name):
            numbers.append([])
    return " ".join(
        str(_add_up(names)) if not _SIZES.keys().isdisjoint(names) else _join_digits(names)
        for names in numbers
        if names
    )


def _add_up(names: list[str]) -> int:
    total = part = 0
    for name in names:
        if name == "hundred":
            part = max(part, 1) * 100
        elif name in _SIZES:
            total, part = total + max(part, 1) * _SIZES[name], 0
        else:
            part += _TENS_NUMBERS.get(name, _SMALL_NUMBERS.get(name, 0))
    return total + part


def _join_digits(names: list[str]) -> str:
    digits, repeats, tens = "", 1, 0
    for name in names:
        if tens and not 0 < _SMALL_NUMBERS.get(name, 0) < 10:
            digits, tens = digits + str(tens), 0
        if name in _TENS_NUMBERS:
            tens = _TENS_NUMBERS[name]
        elif name in _SMALL_NUMBERS:
            digits, tens = digits + str(tens + _SMALL_NUMBERS[name]) * repeats, 0
        repeats = _REPEATS.get(name, 1)
    return digits + (str(tens) if tens else "")


def _write_symbol(words: str) -> str:
    return _SYMBOLS[re.sub(r"[\W]", "", words).lower()]
