"""Literals in a text: found whatever their case, form, spacing, markup or encoding, and replaced by a placeholder."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import whitespace

from sgcd.contrast.amounts import amounts, values
from sgcd.contrast.fold import QUOTES, fold
from sgcd.contrast.search import Stream, Wanted, streams
from sgcd.contrast.views import unescaped

PLACEHOLDER = "hidden"
"""With the kind of the literal behind it where that is known: hidden_card. The lab's policies know the bare word."""
PLACEHELD = re.compile(rf"{PLACEHOLDER}(?:_[a-z]+)?", re.IGNORECASE)
SHORTEST = 3
"""Characters of a literal, unless an environment has declared it: shorter ones are everywhere."""
PASSES = 8


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
    _searched: list[tuple[Sequence[Wanted], Mapping[str, str]]] = field(
        init=False, repr=False, compare=False, default_factory=list[tuple[Sequence[Wanted], Mapping[str, str]]]
    )

    @classmethod
    def of(cls, given: Iterable[str], kind: str = "", shortest: int = 1) -> "Literals":
        """Literals of one kind; those with fewer than `shortest` characters are left out, as are empty ones."""
        placeholder = f"{PLACEHOLDER}_{kind}" if kind else PLACEHOLDER
        known: dict[str, str] = {}
        for value in given:
            literal = " ".join(fold(value.strip(QUOTES + whitespace)).text.split())
            if len(literal) >= max(1, shortest) and not PLACEHELD.fullmatch(literal):
                known[literal] = placeholder
        return cls(known)

    def joined(self, more: "Literals") -> "Literals":
        """These and more; where both know a value, its placeholder stays what it was."""
        return Literals({**more.placeholders, **self.placeholders})

    def find(self, text: str) -> list[Found]:
        """Every occurrence in every reading of the text, overlapping ones too; the longest first at each place."""
        if not self.placeholders or not text:
            return []
        wanted, worth = self._wanted()
        found: set[Found] = set()
        for stream in streams(text):
            found |= {self._at(stream, *span, one.literal) for one in wanted for span in stream.find(one)}
            for start, stop, value in amounts(stream.text) if worth else ():
                found |= {self._at(stream, start, stop, worth[one]) for one in value if one in worth}
        return sorted(found, key=lambda one: (one.start, -one.stop, one.placeholder))

    def mask(self, text: str) -> str:
        """The text without any literal."""
        return self.masked(text)[0]

    def masked(self, text: str) -> tuple[str, int]:
        """The text without any literal, and how many places were replaced.

        What was apart may be a literal once something between is replaced, so it is looked through again; a text that
        keeps making new ones is replaced as a whole.
        """
        count = 0
        for _ in range(PASSES):
            found = self.find(text)
            if not found:
                return text, count
            parts, at = list[str](), 0
            for one in found:
                if one.start >= at:
                    parts += [text[at : one.start], one.placeholder]
                    count += 1
                at = max(at, one.stop)
            text = "".join([*parts, text[at:]])
        return (PLACEHOLDER if self.find(text) else text), count

    def _at(self, stream: Stream, start: int, stop: int, literal: str) -> Found:
        return Found(*stream.folded.origin(start, stop), self.placeholders[literal])

    def _wanted(self) -> tuple[Sequence[Wanted], Mapping[str, str]]:
        """What is searched for, made when it is first needed: literals as they read, and the worth of numbers."""
        if not self._searched:
            readings = {form: one for one in self.placeholders for form in _forms(one)}
            wanted = [Wanted.of(form, one) for form, one in readings.items()]
            worth = {value: one for one in self.placeholders for value in values(one.strip("-+$€£¥% "))}
            self._searched.append((wanted, worth))
        return self._searched[0]


def _forms(literal: str) -> list[str]:
    """A literal that itself looks like something escaped is also looked for as it would be read."""
    return list(dict.fromkeys(" ".join(fold(view.text).text.split()) for view in unescaped(literal)[:2]))
