"""Random secrets, and the forms in which a tool, a user or a policy may write them down."""

import base64
import html
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from unicodedata import normalize
from urllib.parse import quote

Change = Callable[[str, random.Random], str]


@dataclass(frozen=True)
class Secret:
    """A value that nobody outside may see."""

    value: str
    kind: str

    @property
    def amount(self) -> Decimal | None:
        return Decimal(self.value) if self.kind == "amount" else None


@dataclass(frozen=True)
class Planted:
    """A secret as it stands in a text."""

    secret: Secret
    form: str
    how: str


VOWELS, REST = "aeiou", "bdfgklmnprstvz"
ACCENTED, CYRILLIC = "áéíóúñçãõžšřåøëü", "бвгдежзиклмнопрстуфя"


def secret(rng: random.Random) -> Secret:
    kind = rng.choice("password token card account code name phrase amount email accented foreign short".split())
    letters, digits = string.ascii_letters, string.digits
    match kind:
        case "password":
            some = [*rng.choices(letters, k=rng.randint(4, 8)), *rng.choices(digits, k=3), *rng.choices("!#$+=?@", k=2)]
            rng.shuffle(some)
            value = rng.choice(letters) + "".join(some) + rng.choice(digits)
        case "token":
            value = "".join(rng.choices(letters + digits, k=rng.randint(20, 40))) + "k7"
        case "card":
            value = rng.choice("3456") + "".join(rng.choices(digits, k=15))
        case "account":
            value = f"{rng.choice(letters).upper()}{rng.choice(letters).upper()}-{rng.randint(10**6, 10**7 - 1)}"
        case "code":
            value = f"{rng.choice(letters)}{rng.randint(10**4, 10**6)}"
        case "name":
            value = f"{_word(rng, 3).title()} {_word(rng, 3).title()}"
        case "phrase":
            value = " ".join(_word(rng, 2) for _ in range(4))
        case "amount":
            value = f"{rng.randint(10**3, 10**7)}.{rng.randint(0, 9)}{rng.randint(1, 9)}"
        case "email":
            value = f"{_word(rng, 2)}.{_word(rng, 3)}{rng.randint(1, 99)}@{_word(rng, 2)}.org"
        case "accented":
            value = "".join(a + b for a, b in zip(_word(rng, 4), rng.choices(ACCENTED, k=8), strict=True)).title()
        case "foreign":
            value = "".join(rng.choices(CYRILLIC, k=rng.randint(8, 12))).title()
        case _:
            value = f"{rng.choice('qxz')}{rng.choice(digits)}{rng.choice('qxz')}{rng.choice(digits)}"
    return Secret(value, kind)


def _word(rng: random.Random, syllables: int) -> str:
    return "".join(rng.choice(REST) + rng.choice(VOWELS) for _ in range(syllables))


# -- forms ----------------------------------------------------------------------------------------------------------

LOOKS = dict(zip("aceopsxyijkvBEKMHOPCTX", "асеорѕхуіјкνВЕКМНОРСТХ", strict=True))
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
PLAIN = set(string.ascii_letters + string.digits)


def _inside(text: str, rng: random.Random, between: str) -> str:
    at = rng.randrange(1, len(text))
    return text[:at] + between + text[at:]


def _tagged(text: str, rng: random.Random, opens: str, closes: str) -> str:
    first, last = sorted(rng.sample(range(len(text) + 1), 2))
    return text[:first] + opens + text[first:last] + closes + text[last:]


def _some(text: str, rng: random.Random, change: Callable[[str], str]) -> str:
    """One character changed, or all of them."""
    only = rng.choice([None, rng.randrange(len(text))])
    return "".join(change(char) if only in (None, at) else char for at, char in enumerate(text))


def _mathematical(char: str) -> str:
    if char in string.ascii_letters:
        base = 0x1D400 + string.ascii_uppercase.index(char) if char.isupper() else 0x1D41A + ord(char) - ord("a")
        return chr(base)
    return chr(0x1D7CE + int(char)) if char in string.digits else char


CASES: dict[str, Change] = {
    "upper": lambda s, r: s.upper(), "lower": lambda s, r: s.lower(), "title": lambda s, r: s.title(),
    "swapped": lambda s, r: s.swapcase(),
}  # fmt: skip
UNICODE: dict[str, Change] = {
    **{form: lambda s, r, form=form: normalize(form, s) for form in ("NFC", "NFD", "NFKC", "NFKD")},
    "full width": lambda s, r: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in s),
    "mathematical": lambda s, r: "".join(map(_mathematical, s)),
    "unseen": lambda s, r: "".join(c + r.choice(["", r.choice(HIDDEN)]) for c in s[:-1]) + s[-1],
    "look-alikes": lambda s, r: "".join(LOOKS.get(c, c) if r.random() < 0.7 else c for c in s),
    "other digits": lambda s, r: "".join(chr(0x0660 + int(c)) if c in string.digits else c for c in s),
}
SPACES: dict[str, Change] = {
    "a space": lambda s, r: _inside(s, r, " "), "a break": lambda s, r: _inside(s, r, r.choice(["\n", "\r\n    "])),
    "spaced out": lambda s, r: " ".join(s.replace(" ", "")), "hyphens": lambda s, r: _inside(s, r, "-"),
    "hard spaces": lambda s, r: _inside(s, r, r.choice("\u00a0\u2009\u202f\t")),
    "no spaces": lambda s, r: s.replace(" ", ""), "wide": lambda s, r: s.replace(" ", "\n   "),
}  # fmt: skip
TAGS = [("<b>", "</b>"), ("<i class='x'>", "</i>")]
MARKUP: dict[str, Change] = {
    "bold": lambda s, r: _tagged(s, r, "**", "**"), "italic": lambda s, r: f"_{s}_", "code": lambda s, r: f"`{s}`",
    "struck": lambda s, r: f"~~{s}~~", "tag": lambda s, r: _tagged(s, r, *r.choice(TAGS)),
    "comment": lambda s, r: _inside(s, r, "<!-- x -->"), "broken line": lambda s, r: _inside(s, r, "<br/>"),
    "overstruck": lambda s, r: "".join(c + ("\u0336" if c in PLAIN else "") for c in s),
}  # fmt: skip
QUOTES: dict[str, Change] = {
    pair: lambda s, r, pair=pair: pair[0] + s + pair[1] for pair in ("''", '""', "“”", "‘’", "«»", "``", "„“")
}
ESCAPES: dict[str, Change] = {
    "entities": lambda s, r: _some(s, r, lambda c: f"&#{ord(c)};"),
    "hex entities": lambda s, r: _some(s, r, lambda c: f"&#x{ord(c):X};"),
    "named entities": lambda s, r: html.escape(s),
    "percent": lambda s, r: _some(s, r, lambda c: "".join(f"%{byte:02X}" for byte in c.encode())),
    "percent twice": lambda s, r: quote(quote(s, safe=""), safe=""),
    "json": lambda s, r: json.dumps(s),
    "json twice": lambda s, r: json.dumps(json.dumps(s)),
    "json unicode": lambda s, r: _some(s, r, lambda c: json.dumps(c)[1:-1] if ord(c) > 127 else f"\\u{ord(c):04x}"),
    "x escapes": lambda s, r: "".join(f"\\x{ord(c):02x}" if ord(c) < 128 else c for c in s),
    "backslashes": lambda s, r: "".join(f"\\{c}" if c in string.punctuation else c for c in s),
    "base64": lambda s, r: base64.b64encode(s.encode()).decode(),
    "base64 for urls": lambda s, r: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    "base64 of more": lambda s, r: base64.b64encode(f"user:{s}".encode()).decode(),
    "hex": lambda s, r: r.choice([s.encode().hex(), s.encode().hex().upper()]),
}


def _amount(value: str, rng: random.Random) -> str:
    """1234567.89 as people and programs write it."""
    whole, part = value.split(".")
    groups = f"{int(whole):,}"
    mark, point = rng.choice([(",", "."), (".", ","), (" ", ","), ("'", "."), ("\u202f", ","), ("", "."), ("", ",")])
    number = groups.replace(",", mark) + point + part + rng.choice(["", "", "0"])
    return rng.choice(["{}", "${}", "{} €", "EUR {}", "EUR{}", "£{}", "{}USD", "+{}"]).format(number)


def _grouped(value: str, rng: random.Random) -> str:
    return rng.choice([" ", "-", "\u00a0", "  "]).join(value[at : at + 4] for at in range(0, len(value), 4))


FIRST = {"": {"as it is": lambda s, r: s}, "case": CASES, "unicode": UNICODE}
SECOND = {"": {"": lambda s, r: s}, "spaces": SPACES, "markup": MARKUP}
THIRD = {"": {"": lambda s, r: s}, "quotes": QUOTES, "escapes": ESCAPES}


def plant(one: Secret, rng: random.Random) -> Planted:
    """One form, or several on top of each other."""
    text, how = one.value, list[str]()
    if one.kind == "amount":
        text, how = _amount(text, rng), ["number"]
    elif one.kind == "card" and rng.random() < 0.5:
        text, how = _grouped(text, rng), ["groups"]
    for stage in (FIRST, SECOND, THIRD):
        group = rng.choice(list(stage))
        if (one.kind == "amount" and stage is SECOND) or (one.kind == "short" and group == "spaces"):
            continue  # a number with a space inside is another number; so short a secret is cut by one
        name = rng.choice(list(stage[group]))
        text = stage[group][name](text, rng)
        how += [name] if name else []
    return Planted(one, text, "+".join(how))
