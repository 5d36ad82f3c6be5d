"""Replaces a share of a reference's statements with wrong ones, to measure how much their truth matters."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.contrast.leakage.masking import PLACEHOLDER_PATTERN

_KEEP_MASKED_LINE = re.compile(r"^\W*keep masked\b", re.IGNORECASE)
"""The part without statements about the task."""
_STATEMENT_SEPARATOR = re.compile(r"\s*[,;.:](?=\s|$)\s*|\s+instead of\s+|$")
"""Separators between two statements of a line."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a reference: its text, its line number and its place in the line."""

    line: int
    start: int
    stop: int
    text: str


def find_statements(text: str) -> list[Statement]:
    """The statements after the colon of each line. In a line without a colon, all of it.

    >>> text = "they check : find_user , get_booking .\\nkeep masked : hidden ."
    >>> [statement.text for statement in find_statements(text)]
    ['find_user', 'get_booking']
    """
    statements_found: list[Statement] = []
    for line_number, line in enumerate(text.splitlines()):
        if _KEEP_MASKED_LINE.match(line):
            continue
        position = line.index(":") + 1 if ":" in line else 0
        for match in _STATEMENT_SEPARATOR.finditer(line, position):
            statement = line[position : match.start()].strip()
            if statement and statement != "none" and not PLACEHOLDER_PATTERN.fullmatch(statement):
                start = position + line[position:].index(statement)
                statements_found.append(Statement(line_number, start, start + len(statement), statement))
            position = match.end()
    return statements_found


def corrupt_reference(text: str, share: float, other_references: Sequence[str], *, seed: int) -> str:
    """Replace a share of the statements, alternately with one of another part and with one of another task.

    `other_references` belong to other tasks. With equal seeds, a larger share replaces the same statements and more.
    """
    own_statements = find_statements(text)
    rng = random.Random(f"{seed} {text}")
    shuffled_indices = rng.sample(range(len(own_statements)), len(own_statements))
    foreign_texts = sorted(
        {statement.text for other_reference in other_references for statement in find_statements(other_reference)}
        - {statement.text for statement in own_statements}
    )
    replacements: dict[int, str] = {}
    for rank, index in enumerate(shuffled_indices[: round(share * len(own_statements))]):
        own_texts = [
            statement.text
            for statement in own_statements
            if statement.line != own_statements[index].line and statement.text != own_statements[index].text
        ]
        candidates = (own_texts or foreign_texts) if rank % 2 == 0 else (foreign_texts or own_texts)
        if candidates:
            replacements[index] = rng.choice(candidates)
    lines = text.splitlines()
    for index in sorted(replacements, reverse=True):  # from the end of each line, so that earlier offsets stay valid
        statement = own_statements[index]
        lines[statement.line] = (
            lines[statement.line][: statement.start] + replacements[index] + lines[statement.line][statement.stop :]
        )
    return "\n".join(lines)
