"""Reads values in a text: amounts, dates and times are compared by value, however they are written."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache

ReadValue = tuple[int, int, frozenset[str]]
"""Start and stop in a normalized text, and the values that may be meant there."""

_CURRENCIES = "usd eur gbp jpy chf cny inr cad aud nzd sek nok dkk pln brl krw rs kr us".split()
_CURRENCY_ALTERNATIVES = "|".join(_CURRENCIES)
_MAY_PRECEDE_NUMBER = re.compile(rf"(?:^|[\W_]|\b(?:{_CURRENCY_ALTERNATIVES}))$")
_MAY_FOLLOW_NUMBER = rf"(?![0-9]|[.,'_][0-9])(?=(?:{_CURRENCY_ALTERNATIVES})\b|[^\w]|_|$)"
_UNSPACED_NUMBER = re.compile(rf"([0-9][0-9]*(?:[.,'_][0-9]+)*){_MAY_FOLLOW_NUMBER}")
_SPACED_NUMBER = re.compile(rf"(?=([0-9]{{1,3}}(?:\s[0-9]{{3}})+(?:[.,][0-9]+)?){_MAY_FOLLOW_NUMBER})")
_SPACE_IN_NUMBER = re.compile(r"[0-9]\s[0-9]{3}")
_GROUPED_BY_SEPARATOR = {
    mark: re.compile(rf"[0-9]{{1,3}}(?:{re.escape(mark)}[0-9]{{2,3}})*{re.escape(mark)}[0-9]{{3}}") for mark in ",.'_ "
}


def find_amounts(normalized: str) -> Iterator[ReadValue]:
    """Each number in a normalized text, with its possible amounts."""
    patterns = (_UNSPACED_NUMBER, _SPACED_NUMBER) if _SPACE_IN_NUMBER.search(normalized) else (_UNSPACED_NUMBER,)
    for pattern in patterns:
        for match in pattern.finditer(normalized):
            before = normalized[max(0, match.start() - 4) : match.start()]
            continues_number = before[-1:] and before[-1] in ".,'_" and before[-2:-1].isdecimal()
            if not continues_number and _MAY_PRECEDE_NUMBER.search(before) and (readings := possible_amounts(match[1])):
                yield match.start(1), match.end(1), readings


@lru_cache(2**14)
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


_MONTHS = {
    name: number
    for number, names in enumerate(
        "jan january|feb february|mar march|apr april|may|jun june|jul july|aug august|sep sept september"
        "|oct october|nov november|dec december".split("|"),
        start=1,
    )
    for name in names.split()
}
_MONTH = rf"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})"
_DATE_PARTS = {
    "D": r"(?P<day>[0-9][0-9]?)(?:st|nd|rd|th|\.)?",
    "A": r"(?P<first>[0-9][0-9]?)",
    "B": r"(?P<second>[0-9]{1,2})",
    "AA": r"(?P<first>[0-9][0-9])",
    "BB": r"(?P<second>[0-9]{2})",
    "NAME": rf"(?P<name>{_MONTH})\.?",
    "Y": r"'?(?P<year>[0-9]{4}|[0-9]{2})",
    "YYYY": r"(?P<year>[0-9][0-9]{3})",
    "-": r"(?P<separator>\s?[./-]\s?|\s)",
    "=": r"(?P=separator)",
    ",": r"[\s,./-]{1,3}",
    "!": r"(?![\s,./-]{1,3}'?[0-9]{4})",
    "_": r"[\s,./-]{0,3}(?:of\s{1,3})?",
}
_DATES_WITH_NAMES = {
    "D _ NAME , Y": "14 March 1987, 14th of March, 1987, 14-Mar-87",
    "D NAME Y": "14MAR1987, 14MAR87",
    "NAME _ D , Y": "March 14, 1987, Mar. 14th '87",
    "D _ NAME !": "the 14th of March",
    "NAME _ D !": "March 14th",
    "YYYY _ NAME _ D": "1987 March 14",
}
_DATES_IN_DIGITS = {
    "YYYY - A = B": "1987-03-14, 1987/3/14",
    "A - B = Y": "14/03/1987, 3/14/1987, 14.3.87",
    "AA BB YYYY": "14031987, 03141987",
    "YYYY AA BB": "19870314",
}
"""The ways to write a date, as orders of `_DATE_PARTS`, with examples. Day and month may be in either order."""
_DATE_END = r"(?:t\d[\d:.]*z?|(?![/:-]\d)(?=[\W_]|$))"
"""A time of day after a T, or no letter and no digit."""
_MAY_PRECEDE_DATE = re.compile(r"(?:^|(?<!\d)[./-]|[^\w./-]|_)$")
_WEEKDAY = re.compile(r"(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s$")
_MAX_WEEKDAY_CHARS = 11


def _compile_dates(orders: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile("".join(_DATE_PARTS[part] for part in order.split()) + _DATE_END) for order in orders)


_NAMED_DATE_PATTERNS, _DIGIT_DATE_PATTERNS = _compile_dates(_DATES_WITH_NAMES), _compile_dates(_DATES_IN_DIGITS)
_DIGIT = re.compile("[0-9]")
_SHORT_MONTHS = tuple(name for name in _MONTHS if len(name) == 3)
_DAY_OF_YEAR = re.compile(r"(?P<first>[0-9][0-9]?)/(?P<second>[0-9]{1,2})(?![\w/-]|\.[0-9])")
"""3/14 and 14/3, without a year."""
_NO_YEAR = "any year"


def find_dates(normalized: str) -> Iterator[ReadValue]:
    """Each date in a normalized text, with the days that it may mean. A date without a year is a day of any year.

    >>> [sorted(days) for _, _, days in find_dates("on march 14th, 1987 or 03/04/1987")]
    [['1987-03-14'], ['1987-03-04', '1987-04-03']]
    """
    if not _DIGIT.search(normalized):
        return
    named = _NAMED_DATE_PATTERNS if any(name in normalized for name in _SHORT_MONTHS) else ()
    for pattern in (*named, *_DIGIT_DATE_PATTERNS, _DAY_OF_YEAR):
        for match in pattern.finditer(normalized):
            start, parts = match.start(), match.groupdict("")
            if not _MAY_PRECEDE_DATE.search(normalized[max(0, start - 2) : start]):
                continue
            year = parts.get("year", "")
            if name := parts.get("name"):
                days = _possible_days(year, _MONTHS[name], int(parts["day"]))
            else:
                first, second = int(parts["first"]), int(parts["second"])
                days = _possible_days(year, first, second)
                days |= _possible_days(year, second, first) if normalized[start : start + 4] != year else frozenset()
            if days:
                before = _WEEKDAY.search(normalized[max(0, start - _MAX_WEEKDAY_CHARS) : start])
                yield start - len(before[0]) if before else start, match.end(), days


def _possible_days(year: str, month: int, day: int) -> frozenset[str]:
    """The days of a date in digits; none when the calendar has no such day."""
    years = {"": ["2000"]}.get(year, [year] if len(year) == 4 else [f"19{year}", f"20{year}"])
    days = frozenset[str]()
    for full_year in years:
        try:
            days |= {date(int(full_year), month, day).isoformat()}
        except ValueError:
            continue
    return days if year else frozenset(f"{_NO_YEAR}{found[4:]}" for found in days)


_HOUR, _MINUTE, _HALF_OF_DAY = r"(?P<hour>\d{1,2})", r"(?P<minute>\d{2})", r"(?P<half>[ap])\.?m\b\.?"
_TIMES = tuple(
    re.compile(rf"(?<![\w:]){pattern}")
    for pattern in (
        rf"{_HOUR}[:.h]{_MINUTE}(?::\d{{2}}(?:\.\d+)?)?(?:\s?{_HALF_OF_DAY}|(?![\d:]|[.,]\d|[^\W_]))",
        rf"{_HOUR}\s?{_HALF_OF_DAY}",
        rf"{_HOUR}(?:\s?o'clock|h)\b",
        rf"(?P<hour>\d{{2}}){_MINUTE}\s?(?:h|hrs|hours)\b",
        rf"(?P<minute>\d{{1,2}}|half|quarter) (?:minutes )?past {_HOUR}(?![\d:])",
        rf"(?P<minutes_before>\d{{1,2}}|quarter) (?:minutes )?(?:to|before) {_HOUR}(?![\d:])",
    )
)
"""The ways to write a time: 14:30 and 2.30 pm; 2 pm; 2 o'clock and 14h; 1430 hours; half past 2; quarter to 3."""
_SPOKEN_MINUTES = {"half": 30, "quarter": 15}


def find_times(normalized: str, *, is_24_hours: bool = False) -> Iterator[ReadValue]:
    """Each time in a normalized text, with the times of day that it may mean: without am or pm, two.

    >>> [sorted(times) for _, _, times in find_times("at 2:30 pm or half past 2")]
    [['14:30'], ['02:30', '14:30']]
    """
    if not _DIGIT.search(normalized):
        return
    for pattern in _TIMES:
        for match in pattern.finditer(normalized):
            parts = match.groupdict()
            minute = _read_minute(parts.get("minute") or "0") - _read_minute(parts.get("minutes_before") or "0")
            if times := _possible_times(int(parts["hour"]), minute, parts.get("half") or "", is_24_hours):
                yield match.start(), match.end(), times


def _read_minute(text: str) -> int:
    return _SPOKEN_MINUTES.get(text) or int(text)


def _possible_times(hour: int, minute: int, half_of_day: str, is_24_hours: bool) -> frozenset[str]:
    if hour > 24 or minute > 59 or (half_of_day and not 1 <= hour <= 12):
        return frozenset()
    if half_of_day:
        hours = [hour % 12 + (12 if half_of_day == "p" else 0)]
    else:
        hours = [hour, hour + 12] if hour <= 12 and not is_24_hours else [hour]
    return frozenset(f"{total // 60 % 24:02d}:{total % 60:02d}" for total in (each * 60 + minute for each in hours))


VALUE_READERS: Mapping[str, Callable[[str], Iterator[ReadValue]]] = {
    "amount": find_amounts,
    "date": find_dates,
    "time": find_times,
}
"""How the values of each kind are found in a normalized text."""
_AROUND_VALUE = "-+$€£¥% ()"


def read_literal(literal: str) -> dict[str, frozenset[str]]:
    """The values of each kind that a literal denotes as a whole. A date with a time is both.

    >>> {kind: sorted(values) for kind, values in read_literal("1987-03-14 14:30").items()}
    {'date': ['1987-03-14', 'any year-03-14'], 'time': ['14:30']}
    """
    if amounts := possible_amounts(literal.strip(_AROUND_VALUE)):
        return {"amount": amounts}
    found = {"date": list(find_dates(literal)), "time": list(find_times(literal, is_24_hours=True))}
    rest = list(literal)
    for start, stop, _ in (value for values in found.values() for value in values):
        rest[start:stop] = " " * (stop - start)
    if "".join(rest).strip(_AROUND_VALUE + "tz,."):
        return {}
    values = {kind: frozenset[str]().union(*(each for _, _, each in value)) for kind, value in found.items()}
    values["date"] |= {f"{_NO_YEAR}{day[-6:]}" for day in values["date"]}
    return {kind: readings for kind, readings in values.items() if readings}
