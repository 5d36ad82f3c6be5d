"""`Literals`: finds literals in a text in any case, form, spacing, markup or encoding, and replaces them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import whitespace

from sgcd.contrast.leakage.matching import PatternIndex, SearchableText, build_patterns, build_searchable_texts
from sgcd.contrast.leakage.normalize import QUOTES, normalize_text
from sgcd.contrast.leakage.values import VALUE_READERS, read_literal

PLACEHOLDER = "hidden"
"""A kind may follow, as in hidden_card. The lab's policies know the word without a kind."""
PLACEHOLDER_PATTERN = re.compile(rf"{PLACEHOLDER}(?:_[a-z]+)?", re.IGNORECASE)
MIN_LITERAL_CHARS = 3
"""The fewest characters of a literal that is not declared. Shorter values occur everywhere."""
_MAX_PASSES = 8
_IDENTIFIER = re.compile(r"\w+")


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
    public_names: frozenset[str] = frozenset()
    """Names of tools and arguments, in lower case. A literal that is a part of one stays there."""

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
        if other.placeholders.keys() <= self.placeholders.keys() and other.public_names <= self.public_names:
            return self  # with the index of its patterns
        return Literals({**other.placeholders, **self.placeholders}, self.public_names | other.public_names)

    def find(self, text: str) -> list[LiteralMatch]:
        """All occurrences in all decodings of the text, also overlapping ones, by start; the longest first."""
        if not self.placeholders or not text:
            return []
        matches: set[LiteralMatch] = set()
        for searchable in build_searchable_texts(text):
            spans = [(start, stop, pattern.literal) for start, stop, pattern in searchable.find(self._pattern_index)]
            for start, stop, literal in (*spans, *self._find_values(searchable)):
                source_start, source_stop = searchable.normalized.source_span(start, stop)
                if not self._is_in_public_name(text, source_start, source_stop):
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

    def _find_values(self, searchable: SearchableText) -> Iterable[tuple[int, int, str]]:
        """The spans of values that are a literal's: 1,234.50 for 1234.5, March 14th for 1987-03-14."""
        for kind, literals in self._literals_by_value.items():
            for start, stop, values in VALUE_READERS[kind](searchable.text):
                yield from ((start, stop, literals[value]) for value in values if value in literals)

    def _is_in_public_name(self, text: str, start: int, stop: int) -> bool:
        """Whether the span is a part of a public name, such as `booking` in `get_booking`."""
        if not self.public_names:
            return False
        name_start = start
        while name_start and (text[name_start - 1].isalnum() or text[name_start - 1] == "_"):
            name_start -= 1
        name = _IDENTIFIER.match(text, name_start)
        return bool(name) and len(name[0]) > stop - start and name[0].casefold() in self.public_names

    @cached_property
    def _pattern_index(self) -> PatternIndex:
        return PatternIndex([pattern for literal in self.placeholders for pattern in build_patterns(literal)])

    @cached_property
    def _literals_by_value(self) -> Mapping[str, Mapping[str, str]]:
        """For each kind of values, the literal of each value."""
        literals_by_value = defaultdict[str, dict[str, str]](dict)
        for literal in self.placeholders:
            for kind, values in read_literal(literal).items():
                literals_by_value[kind].update(dict.fromkeys(values, literal))
        return literals_by_value
