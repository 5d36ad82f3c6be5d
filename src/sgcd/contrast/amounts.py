"""Numbers by their value: 1,234.50 and 1.234,5 and EUR 1234.50 are the same amount."""

import re
from collections.abc import Iterator

_MONEY = "usd eur gbp jpy chf cny inr cad aud nzd sek nok dkk pln brl krw rs kr us".split()
_CODES = "|".join(_MONEY)
_BEFORE = re.compile(rf"(?:^|[\W_]|\b(?:{_CODES}))$")
_RIGHT = rf"(?![0-9]|[.,'_][0-9])(?=(?:{_CODES})\b|[^\w]|_|$)"
_PLAIN = re.compile(rf"([0-9]+(?:[.,'_][0-9]+)*){_RIGHT}")
_SPACED = re.compile(rf"(?=([0-9]{{1,3}}(?:\s[0-9]{{3}})+(?:[.,][0-9]+)?){_RIGHT})")
_GROUPED = {
    mark: re.compile(rf"[0-9]{{1,3}}(?:{re.escape(mark)}[0-9]{{2,3}})*{re.escape(mark)}[0-9]{{3}}") for mark in ",.'_ "
}


def amounts(folded: str) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Every number in a folded text: where it stands and what it may be worth."""
    for pattern in (_PLAIN, _SPACED):
        for match in pattern.finditer(folded):
            before = folded[max(0, match.start() - 4) : match.start()]
            glued = before[-1:] and before[-1] in ".,'_" and before[-2:-1].isdecimal()
            if not glued and _BEFORE.search(before) and (worth := values(match[1])):
                yield *match.span(1), worth


def values(number: str) -> frozenset[str]:
    """What a number may be worth, without marks between thousands and without zeros that say nothing.

    A number that begins with a zero is a code and no amount.

    >>> sorted(values("1,234")), sorted(values("1.234,50")), sorted(values("0042"))
    (['1.234', '1234'], ['1234.5'], [])
    """
    number = re.sub(r"\s", " ", number)
    if not re.fullmatch(r"[0-9](?:[0-9.,'_ ]*[0-9])?", number):
        return frozenset()
    marks = list(dict.fromkeys(re.findall(r"[^0-9]", number)))
    readings: list[tuple[str, str]] = []
    if not marks:
        readings.append((number, ""))
    for point in (".", ","):
        whole, found, part = number.rpartition(point)
        others = [mark for mark in marks if mark != point]
        if found and number.count(point) == 1 and len(others) <= 1 and _bare(whole, others) is not None:
            readings.append((_bare(whole, others) or "", part))
    if len(marks) == 1 and _GROUPED[marks[0]].fullmatch(number):
        readings.append((number.replace(marks[0], ""), ""))
    return frozenset(_value(whole, part) for whole, part in readings if whole == "0" or whole[0] != "0")


def _bare(whole: str, marks: list[str]) -> str | None:
    """The whole part without marks between its thousands; None when they stand elsewhere."""
    if not marks:
        return whole if whole.isdecimal() else None
    return whole.replace(marks[0], "") if _GROUPED[marks[0]].fullmatch(whole) else None


def _value(whole: str, part: str) -> str:
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole
