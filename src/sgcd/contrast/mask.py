"""Literals in a text: found whatever their case, quotes and Unicode form, and replaced by a placeholder."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json import dumps
from string import whitespace

from sgcd.contrast.fold import QUOTES, fold

PLACEHOLDER = "hidden"
PLACEHOLDERS = {"token": "hidden_token", "number": "hidden_number", "secret": "hidden_secret", "code": "hidden_code"}
"""By the kind of a literal; every other kind is plainly hidden. The lab's policies know that one word."""
SHORTEST = 3
"""Characters of a literal, unless an environment has declared it: shorter ones are everywhere."""
LONG = 12
"""A literal of so many characters is found inside longer words too: a key with something glued to it is still a key."""
PASSES = 8

_WORD = r"[\w\u0300-\u036f]"


@dataclass(frozen=True, slots=True)
class Found:
    """Where in a text a literal stands, and what it is replaced by."""

    start: int
    stop: int
    placeholder: str


@dataclass(frozen=True, slots=True)
class Literals:
    """What a reference must not carry and credit must not touch (method.md 6(g)); the same value, the same placeholder.

    >>> Literals.of(["b12", "Basic"]).mask("your cabin is “basic”, b12 not b123")
    'your cabin is “hidden”, hidden not b123'
    """

    placeholders: Mapping[str, str]
    """By the folded literal."""
    _patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patterns", _patterns(self.placeholders))

    @classmethod
    def of(cls, values: Iterable[str], kind: str = "", shortest: int = 1) -> "Literals":
        """Literals of one kind; those with fewer than `shortest` characters are left out, as are empty ones."""
        placeholder = PLACEHOLDERS.get(kind, PLACEHOLDER)
        known: dict[str, str] = {}
        for value in values:
            bare = value.strip(QUOTES + whitespace)
            for spelt in (bare, dumps(bare)[1:-1]):  # in a call's JSON some characters are escaped
                literal = " ".join(fold(spelt).text.split())
                if len(literal) >= max(1, shortest) and literal not in {PLACEHOLDER, *PLACEHOLDERS.values()}:
                    known[literal] = placeholder
        return cls(known)

    def joined(self, more: "Literals") -> "Literals":
        """These and more; where both know a value, its placeholder stays what it was."""
        return Literals({**more.placeholders, **self.placeholders})

    def find(self, text: str) -> list[Found]:
        """Every occurrence, the longest at each place, overlapping ones too."""
        folded = fold(text)
        found = [
            Found(*folded.origin(*match.span(1)), self.placeholders[" ".join(match[1].split())])
            for pattern in self._patterns
            for match in pattern.finditer(folded.text)
        ]
        return sorted(found, key=lambda one: (one.start, -one.stop))

    def mask(self, text: str) -> str:
        """The text without any literal."""
        return self.masked(text)[0]

    def masked(self, text: str) -> tuple[str, int]:
        """The text without any literal, and how many places were replaced."""
        count = 0
        for _ in range(PASSES):
            found = self.find(text)
            if not found:
                break
            parts, at = list[str](), 0
            for one in found:
                if one.start >= at:
                    parts += [text[at : one.start], one.placeholder]
                    count += 1
                at = max(at, one.stop)
            text = "".join([*parts, text[at:]])  # what was apart may now be a literal of several words: look again
        return text, count


def _patterns(literals: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """Those that begin where a word begins, and those that begin anywhere; the longest of each first."""
    words, anywhere = list[str](), list[str]()
    for literal in sorted(literals, key=lambda literal: (-len(literal), literal)):
        free = (len(literal) >= LONG and " " not in literal) or not re.match(r"\w", literal)
        (anywhere if free else words).append(literal)
    return tuple(_any(some, before) for some, before in ((words, f"(?<!{_WORD})"), (anywhere, "")) if some)


def _any(literals: Sequence[str], before: str) -> re.Pattern[str]:
    """Any of them, looked ahead for, so that all are found which overlap; most places fail at the first letter."""
    first = "".join(sorted({re.escape(literal[0]) for literal in literals}))
    return re.compile(f"{before}(?=[{first}])(?=({'|'.join(map(_searched, literals))}))")


def _searched(literal: str) -> str:
    """Any white space between its words; a shorter one has no letter or digit behind it."""
    core = r"\s+".join(map(re.escape, literal.split(" ")))
    whole = (len(literal) < LONG or " " in literal) and re.search(r"\w$", literal)
    return f"{core}(?!{_WORD})" if whole else core
