"""Literals in a text: found whatever their case, form, spacing, markup or encoding, and replaced by a placeholder."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import whitespace

from sgcd.contrast.leakage.decodings import remove_escapes
from sgcd.contrast.leakage.matching import LiteralPattern, SearchableText, build_searchable_texts
from sgcd.contrast.leakage.normalize import QUOTES, normalize_text
from sgcd.contrast.leakage.numbers import find_amounts, possible_amounts

PLACEHOLDER = "hidden"
"""With the kind of the literal behind it where that is known: hidden_card. The lab's policies know the bare word."""
PLACEHOLDER_PATTERN = re.compile(rf"{PLACEHOLDER}(?:_[a-z]+)?", re.IGNORECASE)
MIN_LITERAL_CHARS = 3
"""Characters of a literal, unless an environment has declared it: shorter ones are everywhere."""
_MAX_PASSES = 8


@dataclass(frozen=True, slots=True)
class LiteralMatch:
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
    _search_patterns: list[tuple[Sequence[LiteralPattern], Mapping[str, str]]] = field(
        init=False, repr=False, compare=False, default_factory=list[tuple[Sequence[LiteralPattern], Mapping[str, str]]]
    )

    @classmethod
    def from_texts(cls, texts: Iterable[str], kind: str = "", min_chars: int = 1) -> "Literals":
        """Literals of one kind; those with fewer than `shortest` characters are left out, as are empty ones."""
        placeholder = f"{PLACEHOLDER}_{kind}" if kind else PLACEHOLDER
        placeholders: dict[str, str] = {}
        for literal_text in texts:
            literal = " ".join(normalize_text(literal_text.strip(QUOTES + whitespace)).text.split())
            if len(literal) >= max(1, min_chars) and not PLACEHOLDER_PATTERN.fullmatch(literal):
                placeholders[literal] = placeholder
        return cls(placeholders)

    def union(self, other: "Literals") -> "Literals":
        """These and more; where both know a value, its placeholder stays what it was."""
        return Literals({**other.placeholders, **self.placeholders})

    def find(self, text: str) -> list[LiteralMatch]:
        """Every occurrence in every reading of the text, overlapping ones too; the longest first at each place."""
        if not self.placeholders or not text:
            return []
        patterns, literals_by_amount = self._build_search_patterns()
        matches: set[LiteralMatch] = set()
        for stream in build_searchable_texts(text):
            matches |= {self._match_at(stream, *span, one.literal) for one in patterns for span in stream.find(one)}
            for start, stop, readings in find_amounts(stream.text) if literals_by_amount else ():
                matches |= {
                    self._match_at(stream, start, stop, literals_by_amount[one])
                    for one in readings
                    if one in literals_by_amount
                }
        return sorted(matches, key=lambda one: (one.start, -one.stop, one.placeholder))

    def mask(self, text: str) -> str:
        """The text without any literal."""
        return self.mask_and_count(text)[0]

    def mask_and_count(self, text: str) -> tuple[str, int]:
        """The text without any literal, and how many places were replaced.

        What was apart may be a literal once something between is replaced, so it is looked through again; a text that
        keeps making new ones is replaced as a whole.
        """
        count = 0
        for _ in range(_MAX_PASSES):
            matches = self.find(text)
            if not matches:
                return text, count
            parts, position = list[str](), 0
            for match in matches:
                if match.start >= position:
                    parts += [text[position : match.start], match.placeholder]
                    count += 1
                position = max(position, match.stop)
            text = "".join([*parts, text[position:]])
        return (PLACEHOLDER if self.find(text) else text), count

    def _match_at(self, stream: SearchableText, start: int, stop: int, literal: str) -> LiteralMatch:
        return LiteralMatch(*stream.normalized.source_span(start, stop), self.placeholders[literal])

    def _build_search_patterns(self) -> tuple[Sequence[LiteralPattern], Mapping[str, str]]:
        """What is searched for, made when it is first needed: literals as they read, and the worth of numbers."""
        if not self._search_patterns:
            literals_by_form = {form: literal for literal in self.placeholders for form in _literal_forms(literal)}
            patterns = [LiteralPattern.from_form(form, literal) for form, literal in literals_by_form.items()]
            literals_by_amount = {
                amount: literal
                for literal in self.placeholders
                for amount in possible_amounts(literal.strip("-+$€£¥% "))
            }
            self._search_patterns.append((patterns, literals_by_amount))
        return self._search_patterns[0]


def _literal_forms(literal: str) -> list[str]:
    """A literal that itself looks like something escaped is also looked for as it would be read."""
    return list(dict.fromkeys(" ".join(normalize_text(view.text).text.split()) for view in remove_escapes(literal)[:2]))
