"""`Literals`: finds literals in a text in any case, form, spacing, markup or encoding, and replaces them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import whitespace

from sgcd.contrast.leakage.matching import LiteralPattern, build_searchable_texts, find_amounts, possible_amounts
from sgcd.contrast.leakage.normalize import QUOTES, normalize_text, remove_escapes

PLACEHOLDER = "hidden"
"""A kind may follow, as in hidden_card. The lab's policies know the word without a kind."""
PLACEHOLDER_PATTERN = re.compile(rf"{PLACEHOLDER}(?:_[a-z]+)?", re.IGNORECASE)
MIN_LITERAL_CHARS = 3
"""The fewest characters of a literal that is not declared. Shorter values occur everywhere."""
_MAX_PASSES = 8


@dataclass(frozen=True, slots=True)
class LiteralMatch:
    """One occurrence of a literal in a text, and its placeholder."""

    start: int
    stop: int
    placeholder: str


@dataclass(frozen=True)
class Literals:
    """Values that a reference must not contain and that get no extra credit, with placeholders.

    >>> Literals.from_texts(["b12", "Basic"]).mask("your cabin is “basic”, b12 not b123")
    'your cabin is “hidden”, hidden not b123'
    """

    placeholders: Mapping[str, str]
    """The placeholder of each literal. The keys are normalized texts."""

    @classmethod
    def from_texts(cls, texts: Iterable[str], kind: str = "", min_chars: int = 1) -> "Literals":
        """Literals of one kind. Texts with fewer than `min_chars` characters, and empty ones, are left out."""
        placeholder = f"{PLACEHOLDER}_{kind}" if kind else PLACEHOLDER
        placeholders: dict[str, str] = {}
        for literal_text in texts:
            literal = " ".join(normalize_text(literal_text.strip(QUOTES + whitespace)).text.split())
            if len(literal) >= max(1, min_chars) and not PLACEHOLDER_PATTERN.fullmatch(literal):
                placeholders[literal] = placeholder
        return cls(placeholders)

    def union(self, other: "Literals") -> "Literals":
        """The literals of both. This one's placeholder wins for a value in both."""
        return Literals({**other.placeholders, **self.placeholders})

    def find(self, text: str) -> list[LiteralMatch]:
        """All occurrences in all decodings of the text, also overlapping ones, by start; the longest first."""
        if not self.placeholders or not text:
            return []
        matches: set[LiteralMatch] = set()
        for searchable in build_searchable_texts(text):
            occurrences = [(span, pattern.literal) for pattern in self._patterns for span in searchable.find(pattern)]
            for start, stop, amounts in find_amounts(searchable.text) if self._literals_by_amount else ():
                occurrences += [
                    ((start, stop), self._literals_by_amount[amount])
                    for amount in amounts
                    if amount in self._literals_by_amount
                ]
            for (start, stop), literal in occurrences:
                source_start, source_stop = searchable.normalized.source_span(start, stop)
                matches.add(LiteralMatch(source_start, source_stop, self.placeholders[literal]))
        return sorted(matches, key=lambda match: (match.start, -match.stop, match.placeholder))

    def mask(self, text: str) -> str:
        """The text with a placeholder for each literal."""
        return self.mask_and_count(text)[0]

    def mask_and_count(self, text: str) -> tuple[str, int]:
        """The text with a placeholder for each literal, and the number of replacements.

        A replacement may join characters to a new literal, so the search repeats. A text with literals after the last
        pass is replaced as a whole.
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

    @cached_property
    def _patterns(self) -> Sequence[LiteralPattern]:
        literals_by_form = {form: literal for literal in self.placeholders for form in _literal_forms(literal)}
        return [LiteralPattern.from_form(form, literal) for form, literal in literals_by_form.items()]

    @cached_property
    def _literals_by_amount(self) -> Mapping[str, str]:
        """The literal of each amount: 1,234.50 and 1234.5 are one amount."""
        return {
            amount: literal for literal in self.placeholders for amount in possible_amounts(literal.strip("-+$€£¥% "))
        }


def _literal_forms(literal: str) -> list[str]:
    """The literal, and its decoded form when the literal itself looks escaped."""
    return list(dict.fromkeys(" ".join(normalize_text(view.text).text.split()) for view in remove_escapes(literal)[:2]))
