"""Compares numbers by value: 1,234.50 and 1.234,5 and EUR 1234.50 are the same amount."""

import re
from collections.abc import Iterator

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
