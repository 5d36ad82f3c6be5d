"""The forms of a literal as text: names with initials, plurals, parts of addresses and of numbers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sgcd.contrast.leakage.decodings import remove_escapes
from sgcd.contrast.leakage.normalize import normalize_text


@dataclass(frozen=True, slots=True)
class LiteralForm:
    """One way to write a literal."""

    text: str
    is_exact: bool = False
    """Whether a text must have the form's own signs, and nothing between its letters: `j. smith`, the last four."""


_NAME = re.compile(r"([^\W\d_]{2,})(?:[ _.]([^\W\d_]+))?[ _.]([^\W\d_]{2,})")
_NAME_FORMS = (
    "{last} {first};{first} {last};{initial} {last};{last} {initial};mr {last};mrs {last};ms {last};dr {last}"
).split(";")
_EXACT_NAME_FORMS = (
    "{last}, {first};{last}, {initial};{last}, {initial}.;{last} {initial}.;"
    "{initial}. {last};{initial}.{last};{initial}{last};{first} {last_initial}."
).split(";")
"""For Jane Smith: Smith, Jane; J. Smith; jsmith; Smith, J.; Jane S."""
_ONE_LETTER_WORDS = ("a", "i")
_ADDRESS = re.compile(r"(?=[^@]*[\d._+-])([^@\s]{6,})@[^@\s]+\.[^@\s]+")
"""An e-mail address. What stands before the @ is a form when it is no ordinary word."""
_NUMBER = re.compile(r"[+(]*\d(?:[ ().\-/]{0,3}\d){6,}")
_NUMBERED_ID = re.compile(r"[a-z][a-z_-]*[_-]?(\d{7,})")
_PHONE_CODES = (1, 2, 3)
"""Digits of a country's code."""
_MASK_SIGNS = ("", "x", "xx", "xxxx", "x" * 8, "x" * 12)
"""What stands for the digits before the last four."""
_MIN_NATIONAL_DIGITS = 7


def literal_forms(literal: str) -> list[LiteralForm]:
    """The literal itself, and the other ways to write it.

    >>> [form.text for form in literal_forms("jane smith")][:6]
    ['jane smith', 'smith jane', 'j smith', 'smith j', 'mr smith', 'mrs smith']
    """
    readings = [" ".join(normalize_text(view.text).text.split()) for view in remove_escapes(literal)[:2]]
    forms = [LiteralForm(reading) for reading in readings]
    for list_forms in (_name_forms, _number_forms_of, _address_forms, _word_forms):
        forms += list_forms(literal)
    return list(dict.fromkeys(forms))


def _name_forms(literal: str) -> Iterator[LiteralForm]:
    if not (match := _NAME.fullmatch(literal)):
        return
    first, last = match[1], match[3]
    words = {"first": first, "last": last, "initial": first[0], "last_initial": last[0]}
    for template in _NAME_FORMS:
        needs_sign = "{initial}" in template and first[0] in _ONE_LETTER_WORDS
        is_short = "{first}" in template and len(first + last) < 6
        if not needs_sign and not is_short:
            yield LiteralForm(template.format(**words))
    for template in _EXACT_NAME_FORMS:
        yield LiteralForm(template.format(**words), is_exact=True)


def _number_forms_of(literal: str) -> Iterator[LiteralForm]:
    """A long number's last four digits, the number of an id without its prefix, a phone number without its code."""
    if match := _NUMBERED_ID.fullmatch(literal):
        digits = match[1]
        yield LiteralForm(digits)
    elif _NUMBER.fullmatch(literal):
        digits = re.sub(r"\D", "", literal)
    else:
        return
    for signs in _MASK_SIGNS:
        yield LiteralForm(signs + digits[-4:], is_exact=True)
    if literal.startswith(("+", "00", "(")):
        digits = digits.removeprefix("00")
        for code in _PHONE_CODES:
            for national in (digits[code:], f"0{digits[code:]}", f"{digits[:code]}0{digits[code:]}"):
                if len(national) >= _MIN_NATIONAL_DIGITS:
                    yield LiteralForm(national)
        yield LiteralForm(f"00{digits}")
        yield LiteralForm(digits[-_MIN_NATIONAL_DIGITS:])


def _address_forms(literal: str) -> Iterator[LiteralForm]:
    if match := _ADDRESS.fullmatch(literal):
        yield LiteralForm(match[1])


def _word_forms(literal: str) -> Iterator[LiteralForm]:
    """Plural and singular where more changes than an added s, which `SearchableText.find` allows by itself."""
    if not re.search(r"[^\W\d_]{4}$", literal):
        return
    if literal.endswith("y"):
        yield LiteralForm(f"{literal[:-1]}ies")
    elif literal.endswith("ies"):
        yield LiteralForm(f"{literal[:-3]}y")
    if literal.endswith("s") and not literal.endswith(("ss", "us", "is")) and len(literal) >= 5:
        yield LiteralForm(literal[:-1])
