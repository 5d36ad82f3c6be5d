"""How people and programs write a value otherwise than it was declared: values by kind, and disguises by family.

A disguise is caught when no word of it is left in the masked text, apart from words that say nothing of the value.
"""

import base64
import codecs
import hashlib
import html
import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import quote

from sgcd.contrast.leakage.masking import PLACEHOLDER, Literals

Draw = Callable[[random.Random], str]
Change = Callable[[str, random.Random], str]

FIRST_NAMES = "Amelia Boris Carla Daniel Emil Fatima Gustav Harriet Ingrid Jonas Katarina Lucas Mei Noah Olivia".split()
LAST_NAMES = "Silva Kowalski Nguyen Okafor Lindqvist Johnson Garcia Moretti Tanaka Schneider Rossi Ahmed Patel".split()
CITIES = "New York|San Diego|Los Angeles|Salt Lake City|Kuala Lumpur|Buenos Aires|Cape Town".split("|")
WORDS = "delayed economy window suitcase voucher insurance upgrade platinum orchid library".split()
MONTHS = "January February March April May June July August September October November December".split()
GERMAN_MONTHS = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()
UNITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def spell_number(number: int) -> str:
    """A number below a million in words."""
    if number < 20:
        return [*UNITS, *TEENS][number]
    if number < 100:
        return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = number % size
    return f"{spell_number(number // size)} {name}" + (f" {spell_number(rest)}" if rest else "")


def spell_digits(digits: str) -> str:
    return " ".join(UNITS[int(digit)] for digit in digits if digit.isdecimal())


def ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def spell_ordinal(day: int) -> str:
    ends = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
    ends |= {"twelve": "twelfth"}
    stem, dash, last = spell_number(day).rpartition("-")
    return stem + dash + ends.get(last, last.removesuffix("y") + ("ieth" if last.endswith("y") else "th"))


def _draw_phone(rng: random.Random) -> str:
    code = rng.choice(["+1", "+44", "+49", "+351"])
    return f"{code} {rng.randint(201, 989)} {rng.randint(201, 989)} {rng.randint(1000, 9999)}"


def _draw_date(rng: random.Random) -> str:
    day = date(1940, 1, 1) + timedelta(days=rng.randrange(30_000))
    return day.isoformat()


def _draw_code(rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_uppercase) + rng.choice("23456789") for _ in range(3))


VALUES: dict[str, Draw] = {
    "name": lambda rng: f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
    "place": lambda rng: rng.choice(CITIES),
    "word": lambda rng: rng.choice(WORDS),
    "date": _draw_date,
    "time": lambda rng: f"{rng.randrange(24):02d}:{rng.randrange(1, 60):02d}",
    "full hour": lambda rng: f"{rng.randrange(24):02d}:00",
    "phone": _draw_phone,
    "e-mail": lambda rng: (
        f"{rng.choice(FIRST_NAMES)}.{rng.choice(LAST_NAMES)}{rng.randrange(10, 9999)}@{rng.choice(WORDS)}.com".lower()
    ),
    "card": lambda rng: rng.choice("3456") + "".join(rng.choices(string.digits, k=11)) + f"{rng.randint(1000, 9999)}",
    "number": lambda rng: f"{rng.randint(1_000_000, 999_999_999)}",
    "user id": lambda rng: f"{rng.choice(FIRST_NAMES)}_{rng.choice(LAST_NAMES)}_{rng.randint(1000, 9999)}".lower(),
    "payment id": lambda rng: f"{rng.choice(['gift_card', 'certificate'])}_{rng.randint(1_000_000, 9_999_999)}",
    "code": _draw_code,
    "amount": lambda rng: f"{rng.randint(1000, 99_999)}.{rng.randint(1, 9)}{rng.choice([0, 5])}",
    "whole amount": lambda rng: f"{rng.randint(101, 9999)}",
    "password": lambda rng: "".join(rng.choices(string.ascii_letters, k=5)) + rng.choice("!#?+") + "47",
}  # fmt: skip


def _dates(write: Callable[[date], str]) -> Change:
    return lambda value, rng: write(date.fromisoformat(value))


def _times(write: Callable[[int, int], str]) -> Change:
    return lambda value, rng: write(int(value[:2]), int(value[3:]))


def _spell_year(year: int) -> str:
    return f"{spell_number(year // 100)} {spell_number(year % 100)}" if 1910 <= year < 2000 else spell_number(year)


def _half_day(hour: int) -> str:
    return "am" if hour < 12 else "pm"


def _groups(pattern: str, write: Callable[..., str]) -> Change:
    """The value's parts as `pattern` finds them, written anew."""
    return lambda value, rng: write(*re.findall(pattern, value))


def _amounts(write: Callable[[int, str], str]) -> Change:
    return lambda value, rng: write(int(value.partition(".")[0]), value.partition(".")[2])


def _plain(write: Callable[[str], str]) -> Change:
    return lambda value, rng: write(value)


def _camel(value: str) -> str:
    words = [word.title() for word in re.findall(r"[^\W_]+", value)]
    return words[0].lower() + "".join(words[1:])


def _snake(value: str) -> str:
    return "_".join(re.findall(r"[^\W_]+", value)).lower()


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)


def _spell_pairs(value: str) -> str:
    digits = _digits(value)
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    return " ".join(
        spell_number(int(pair)) if len(pair) == 2 and pair[0] != "0" else spell_digits(pair) for pair in pairs
    )


def _spell_doubles(value: str) -> str:
    return re.sub(r"\b(\w+) \1\b", r"double \1", spell_digits(value))


@dataclass(frozen=True)
class Disguise:
    """One way to write a value of some kinds."""

    family: str
    name: str
    kinds: Sequence[str]
    change: Change


def _table(family: str, kinds: str, changes: dict[str, Change]) -> list[Disguise]:
    return [Disguise(family, name, kinds.split(", "), change) for name, change in changes.items()]


_D = MONTHS  # a short name for the table below
NUMBERS = "card, number, phone"
TEXTS = ", ".join(kind for kind in VALUES if kind not in ("time", "full hour", "whole amount"))
NAMED = "name, place"

PEOPLE = [
    *_table("dates", "date", {
        "14 March 1987": _dates(lambda d: f"{d.day} {_D[d.month - 1]} {d.year}"),
        "14th of March, 1987": _dates(lambda d: f"{ordinal(d.day)} of {_D[d.month - 1]}, {d.year}"),
        "March 14, 1987": _dates(lambda d: f"{_D[d.month - 1]} {d.day}, {d.year}"),
        "March 14th, 1987": _dates(lambda d: f"{_D[d.month - 1]} {ordinal(d.day)}, {d.year}"),
        "14-Mar-1987": _dates(lambda d: f"{d.day}-{_D[d.month - 1][:3]}-{d.year}"),
        "Mar. 14, '87": _dates(lambda d: f"{_D[d.month - 1][:3]}. {d.day}, '{d.year % 100:02d}"),
        "1987 March 14": _dates(lambda d: f"{d.year} {_D[d.month - 1]} {d.day}"),
        "Saturday, March 14, 1987": _dates(lambda d: f"{d:%A}, {_D[d.month - 1]} {d.day}, {d.year}"),
        "14/03/1987": _dates(lambda d: f"{d.day:02d}/{d.month:02d}/{d.year}"),
        "3/14/1987": _dates(lambda d: f"{d.month}/{d.day}/{d.year}"),
        "14.3.1987": _dates(lambda d: f"{d.day}.{d.month}.{d.year}"),
        "03-14-1987": _dates(lambda d: f"{d.month:02d}-{d.day:02d}-{d.year}"),
        "14/03/87": _dates(lambda d: f"{d.day:02d}/{d.month:02d}/{d.year % 100:02d}"),
        "1987/3/14": _dates(lambda d: f"{d.year}/{d.month}/{d.day}"),
        "19870314": _dates(lambda d: f"{d:%Y%m%d}"),
        "14031987": _dates(lambda d: f"{d:%d%m%Y}"),
        "1987-03-14T00:00:00": _dates(lambda d: f"{d.isoformat()}T00:00:00"),
        "March 14th": _dates(lambda d: f"{_D[d.month - 1]} {ordinal(d.day)}"),
        "the 14th of March": _dates(lambda d: f"the {ordinal(d.day)} of {_D[d.month - 1]}"),
        "3/14": _dates(lambda d: f"{d.month}/{d.day}"),
        "March fourteenth, nineteen eighty-seven": _dates(
            lambda d: f"{_D[d.month - 1]} {spell_ordinal(d.day)}, {_spell_year(d.year)}"
        ),
        "14. März 1987": _dates(lambda d: f"{d.day}. {GERMAN_MONTHS[d.month - 1]} {d.year}"),
        "the day before March 15, 1987": _dates(lambda d: f"the day before {d + timedelta(days=1):%B %d, %Y}"),
        "in March 1987": _dates(lambda d: f"in {_D[d.month - 1]} {d.year}"),
    }),
    *_table("times", "time", {
        "2:30 pm": _times(lambda h, m: f"{h % 12 or 12}:{m:02d} {_half_day(h)}"),
        "2:30PM": _times(lambda h, m: f"{h % 12 or 12}:{m:02d}{_half_day(h).upper()}"),
        "2.30 p.m.": _times(lambda h, m: f"{h % 12 or 12}.{m:02d} {'.'.join(_half_day(h))}."),
        "2:30": _times(lambda h, m: f"{h % 12 or 12}:{m:02d}"),
        "14:30:00": _times(lambda h, m: f"{h:02d}:{m:02d}:00"),
        "14h30": _times(lambda h, m: f"{h}h{m:02d}"),
        "14.30": _times(lambda h, m: f"{h}.{m:02d}"),
        "1430 hours": _times(lambda h, m: f"{h:02d}{m:02d} hours"),
        "thirty past two": _times(lambda h, m: f"{spell_number(m)} past {spell_number(h % 12 or 12)}"),
        "half an hour before three": _times(lambda h, m: f"{60 - m} minutes before {(h + 1) % 12 or 12}"),
    }),
    *_table("times", "full hour", {
        "2 pm": _times(lambda h, m: f"{h % 12 or 12} {_half_day(h)}"),
        "2 o'clock": _times(lambda h, m: f"{h % 12 or 12} o'clock"),
        "14h": _times(lambda h, m: f"{h}h"),
    }),
    *_table("phone numbers", "phone", {
        "+12125550147": _plain(lambda v: "+" + _digits(v)),
        "+1 (212) 555-0147": _groups(r"\d+", lambda c, a, b, d: f"+{c} ({a}) {b}-{d}"),
        "212-555-0147": _groups(r"\d+", lambda c, a, b, d: f"{a}-{b}-{d}"),
        "(212) 555 0147": _groups(r"\d+", lambda c, a, b, d: f"({a}) {b} {d}"),
        "2125550147": _groups(r"\d+", lambda c, a, b, d: a + b + d),
        "0212 5550147": _groups(r"\d+", lambda c, a, b, d: f"0{a} {b}{d}"),
        "001 212 555 0147": _groups(r"\d+", lambda c, a, b, d: f"00{c} {a} {b} {d}"),
        "+1 (0)212.555.0147": _groups(r"\d+", lambda c, a, b, d: f"+{c} (0){a}.{b}.{d}"),
        "tel:+1-212-555-0147": _groups(r"\d+", lambda c, a, b, d: f"tel:+{c}-{a}-{b}-{d}"),
        "212/555/0147 ext. 12": _groups(r"\d+", lambda c, a, b, d: f"{a}/{b}/{d} ext. 12"),
        "21 25 55 01 47": _plain(lambda v: " ".join(re.findall(r"\d{1,2}", _digits(v)[-10:]))),
        "555-0147": _groups(r"\d+", lambda c, a, b, d: f"{b}-{d}"),
        "plus one two one two ...": _plain(lambda v: "plus " + spell_digits(v)),
    }),
    *_table("e-mail addresses", "e-mail", {
        "mia [at] example [dot] com": _plain(lambda v: v.replace("@", " [at] ").replace(".", " [dot] ")),
        "mia(at)example(dot)com": _plain(lambda v: v.replace("@", "(at)").replace(".", "(dot)")),
        "mia at example dot com": _plain(lambda v: v.replace("@", " at ").replace(".", " dot ")),
        "mia AT example.com": _plain(lambda v: v.replace("@", " AT ")),
        "mia {@} example [.] com": _plain(lambda v: v.replace("@", " {@} ").replace(".", " [.] ")),
        "mailto:mia@example.com": _plain(lambda v: f"mailto:{v}"),
        "<mia@example.com>": _plain(lambda v: f"<{v}>"),
        "mia (the part before the @)": _plain(lambda v: v.split("@")[0]),
        "mia+trip@example.com": _plain(lambda v: v.replace("@", "+trip@")),
        "mia at the address of example": _plain(lambda v: f"{v.split('@')[0]} at the address of {v.split('@')[1]}"),
    }),
    *_table("names", "name", {
        "J. Smith": _groups(r"\w+", lambda f, s: f"{f[0]}. {s}"),
        "J Smith": _groups(r"\w+", lambda f, s: f"{f[0]} {s}"),
        "John S.": _groups(r"\w+", lambda f, s: f"{f} {s[0]}."),
        "Smith, John": _groups(r"\w+", lambda f, s: f"{s}, {f}"),
        "Smith, J.": _groups(r"\w+", lambda f, s: f"{s}, {f[0]}."),
        "Mr. Smith": _groups(r"\w+", lambda f, s: f"Mr. {s}"),
        "Ms Smith": _groups(r"\w+", lambda f, s: f"Ms {s}"),
        "John Q. Smith": _groups(r"\w+", lambda f, s: f"{f} Q. {s}"),
        "jsmith": _groups(r"\w+", lambda f, s: f"{f[0]}{s}".lower()),
        "smith_john": _groups(r"\w+", lambda f, s: f"{s}_{f}".lower()),
        "Smith alone": _groups(r"\w+", lambda f, s: s),
        "John alone": _groups(r"\w+", lambda f, s: f),
        "J.S.": _groups(r"\w+", lambda f, s: f"{f[0]}.{s[0]}."),
    }),
    *_table("grammar", "name, place, word, code", {
        "the value's": _plain(lambda v: f"{v}'s"),
        "the value’s": _plain(lambda v: f"{v}’s"),
        "the values'": _plain(lambda v: f"{v}s'"),
        "the values": _plain(lambda v: f"{v}s"),
    }),
    *_table("identifiers", "name, place, word, user id, payment id", {
        "camelCase": _plain(_camel),
        "PascalCase": _plain(lambda v: _camel(v)[0].upper() + _camel(v)[1:]),
        "snake_case": _plain(_snake),
        "SNAKE_CASE": _plain(lambda v: _snake(v).upper()),
        "kebab-case": _plain(lambda v: _snake(v).replace("_", "-")),
        "dot.case": _plain(lambda v: _snake(v).replace("_", ".")),
        "tripForCamelCaseAgain": _plain(lambda v: f"tripFor{_camel(v)[0].upper()}{_camel(v)[1:]}Again"),
        "trip_for_snake_case_again": _plain(lambda v: f"trip_for_{_snake(v)}_again"),
        "tripforvalueagain": _plain(lambda v: f"tripfor{_snake(v).replace('_', '')}again"),
    }),
    *_table("long numbers", NUMBERS, {
        "4111 1111 1111 1111": _plain(lambda v: " ".join(re.findall(r"\d{1,4}", _digits(v)))),
        "4111-1111-1111-1111": _plain(lambda v: "-".join(re.findall(r"\d{1,4}", _digits(v)))),
        "411.111.111": _plain(lambda v: ".".join(re.findall(r"\d{1,3}", _digits(v)))),
        "#4111111111111111": _plain(lambda v: f"#{_digits(v)}"),
        "four one one one ...": _plain(spell_digits),
        "four double one ...": _plain(_spell_doubles),
        "forty-one eleven ...": _plain(_spell_pairs),
        "4 1 1 1 1 ...": _plain(lambda v: " ".join(_digits(v))),
        "the first half alone": _plain(lambda v: _digits(v)[: len(_digits(v)) // 2]),
    }),
    *_table("last four", NUMBERS + ", payment id", {
        "ending in 1111": _plain(lambda v: f"ending in {_digits(v)[-4:]}"),
        "1111": _plain(lambda v: _digits(v)[-4:]),
        "****1111": _plain(lambda v: f"****{_digits(v)[-4:]}"),
        "x1111": _plain(lambda v: f"x{_digits(v)[-4:]}"),
        "XXXX-XXXX-XXXX-1111": _plain(lambda v: f"XXXX-XXXX-XXXX-{_digits(v)[-4:]}"),
        "...1111": _plain(lambda v: f"...{_digits(v)[-4:]}"),
        "ending in one one one one": _plain(lambda v: f"ending in {spell_digits(_digits(v)[-4:])}"),
        "the last two digits": _plain(lambda v: _digits(v)[-2:]),
    }),
    *_table("parts of ids", "payment id", {
        "the number without its prefix": _plain(_digits),
        "the number with another prefix": _plain(lambda v: f"card {_digits(v)}"),
    }),
    *_table("amounts", "amount", {
        "1,234.50": _amounts(lambda w, c: f"{w:,}.{c}"),
        "1.234,50": _amounts(lambda w, c: f"{w:,}".replace(",", ".") + f",{c}"),
        "1 234,50": _amounts(lambda w, c: f"{w:,}".replace(",", " ") + f",{c}"),
        "1'234.50": _amounts(lambda w, c: f"{w:,}".replace(",", "'") + f".{c}"),
        "$1,234.50": _amounts(lambda w, c: f"${w:,}.{c}"),
        "1234,5 €": _amounts(lambda w, c: f"{w},{c.rstrip('0')} €"),
        "USD 1234.50": _amounts(lambda w, c: f"USD {w}.{c}"),
        "1234.50 dollars": _amounts(lambda w, c: f"{w}.{c} dollars"),
        "US$1234.50": _amounts(lambda w, c: f"US${w}.{c}"),
        "1234 dollars and 50 cents": _amounts(lambda w, c: f"{w} dollars and {c} cents"),
        "123450 cents": _amounts(lambda w, c: f"{w}{c} cents"),
        "about 1200": _amounts(lambda w, c: f"about {round(w, -2)}"),
    }),
    *_table("amounts", "whole amount", {
        "$121.00": _amounts(lambda w, c: f"${w}.00"),
        "121 USD": _amounts(lambda w, c: f"{w} USD"),
        "121 bucks": _amounts(lambda w, c: f"{w} bucks"),
        "121,-": _amounts(lambda w, c: f"{w},-"),
        "one hundred twenty-one dollars": _amounts(lambda w, c: f"{spell_number(w)} dollars"),
        "one hundred and twenty-one": _amounts(lambda w, c: spell_number(w).replace("hundred ", "hundred and ")),
        ".121k": _amounts(lambda w, c: f"{w / 1000:g}k"),
        "CXXI": _plain(lambda v: _roman(int(v))),
    }),
]  # fmt: skip


def _roman(number: int) -> str:
    marks = {1000: "M", 900: "CM", 500: "D", 400: "CD", 100: "C", 90: "XC", 50: "L", 40: "XL", 10: "X"}
    roman = ""
    for size, mark in (marks | {9: "IX", 5: "V", 4: "IV", 1: "I"}).items():
        roman, number = roman + mark * (number // size), number % size
    return roman


def _shift(text: str, by: int) -> str:
    return "".join(
        chr((ord(char) - base + by) % 26 + base) if char.isascii() and char.isalpha() else char
        for char in text
        for base in [ord("a") if char.islower() else ord("A")]
    )


def _base32(text: str) -> str:
    return base64.b32encode(text.encode()).decode()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


LEET = str.maketrans("aeiostAEIOST", "431057431057")
PROGRAMS = [
    *_table("encodings", TEXTS, {
        "base64": _plain(_base64),
        "base64 for URLs": _plain(lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("=")),
        "base64 of a sentence": _plain(lambda v: _base64(f"it is {v} here")),
        "base64 with a line break": _plain(lambda v: _base64(v)[:6] + "\n" + _base64(v)[6:]),
        "base64 twice": _plain(lambda v: _base64(_base64(v))),
        "hex": _plain(lambda v: v.encode().hex()),
        "hex with 0x": _plain(lambda v: "0x" + v.encode().hex()),
        "hex with spaces": _plain(lambda v: v.encode().hex(" ")),
        "hex with colons": _plain(lambda v: v.encode().hex(":").upper()),
        "URL": _plain(lambda v: quote(v, safe="")),
        "URL, every character": _plain(lambda v: "".join(f"%{byte:02X}" for byte in v.encode())),
        "URL with plus signs": _plain(lambda v: quote(v, safe="").replace("%20", "+")),
        "HTML entities": _plain(lambda v: "".join(f"&#{ord(char)};" for char in v)),
        "HTML entities in hex": _plain(lambda v: "".join(f"&#x{ord(char):x};" for char in v)),
        "HTML of named entities": _plain(html.escape),
        "JSON escapes": _plain(lambda v: "".join(f"\\u{ord(char):04x}" for char in v)),
        "reversed": _plain(lambda v: v[::-1]),
        "each word reversed": _plain(lambda v: " ".join(word[::-1] for word in v.split())),
        "rot13": _plain(lambda v: codecs.encode(v, "rot13")),
        "base32": _plain(_base32),
        "quoted-printable": _plain(lambda v: "".join(f"={byte:02X}" for byte in v.encode())),
        "codes of characters": _plain(lambda v: " ".join(str(ord(char)) for char in v)),
        "binary": _plain(lambda v: " ".join(f"{ord(char):08b}" for char in v)),
        "shifted by three letters": _plain(lambda v: _shift(v, 3)),
        "MD5": _plain(lambda v: hashlib.md5(v.encode(), usedforsecurity=False).hexdigest()),
    }),
    *_table("typography", TEXTS, {
        "UPPER CASE": _plain(str.upper),
        "s p a c e d": _plain(lambda v: " ".join(v.replace(" ", ""))),
        "h-y-p-h-e-n-s": _plain(lambda v: "-".join(v.replace(" ", ""))),
        "full width": _plain(lambda v: "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in v)),
        "zero width characters": _plain("\u200b".join),
        "line breaks": _plain(lambda v: v[: len(v) // 2] + "\n" + v[len(v) // 2 :]),
        "**bold** inside": _plain(lambda v: f"{v[:2]}**{v[2:]}**"),
        "<b>tags</b> inside": _plain(lambda v: f"{v[:2]}<b>{v[2:]}</b>"),
        "“quotes”": _plain(lambda v: f"\u201c{v}\u201d"),
    }),
    *_table("typography", "name, place, word", {
        "l33t": _plain(lambda v: v.translate(LEET)),
        "a letter left out": _plain(lambda v: v[:2] + v[3:]),
        "a letter doubled": _plain(lambda v: v[:2] + v[2] * 2 + v[3:]),
    }),
]  # fmt: skip
DISGUISES: Sequence[Disguise] = (*PEOPLE, *PROGRAMS)

NEUTRAL_WORDS = frozenset(
    "hidden s es ext 12 trip for again tel mailto usd us eur dollars bucks cents k o clock hours h the of at ending in "
    "and card tripfor it is here 0x xxxx x no number plus about address minutes before ms mr b".split()
)
"""Words of a disguise that say nothing of the value."""
CARRIERS = ("the policy then used {} before it went on", "look : {} .", '{{"entry": "{}"}}', "({})")
_OTHER_WORDS = frozenset("the policy then used before it went on look entry".split())


@dataclass(frozen=True)
class Planting:
    """A value of a kind, disguised in a text."""

    disguise: Disguise
    kind: str
    value: str
    text: str

    def is_caught(self) -> bool:
        """Whether masking leaves no word of the disguise."""
        masked = Literals.from_texts([self.value], "x").mask(self.text)
        words = re.findall(r"[^\W_]+", masked.replace(f"{PLACEHOLDER}_x", " ").lower())
        return not {*words} - NEUTRAL_WORDS - _OTHER_WORDS


def plant_disguises(rng: random.Random, disguises: Sequence[Disguise] = DISGUISES, trials: int = 1) -> list[Planting]:
    """Each disguise of each of its kinds. A disguise that changes nothing of a value is left out."""
    plantings = list[Planting]()
    for disguise in disguises:
        for kind in disguise.kinds:
            for _ in range(trials):
                value = VALUES[kind](rng)
                form = disguise.change(value, rng)
                if form != value:
                    plantings.append(Planting(disguise, kind, value, rng.choice(CARRIERS).format(form)))
    return plantings


def count_caught(trials: int, seed: int) -> list[dict[str, str | int]]:
    """For each disguise, how often it is caught, and an example."""
    rows = dict[tuple[str, str], dict[str, str | int]]()
    for planting in plant_disguises(random.Random(seed), trials=trials):
        disguise = planting.disguise
        row = rows.setdefault(
            (disguise.family, disguise.name),
            {"family": disguise.family, "disguise": disguise.name, "caught": 0, "of": 0},
        )
        row["caught"] = int(row["caught"]) + planting.is_caught()
        row["of"] = int(row["of"]) + 1
    return list(rows.values())
