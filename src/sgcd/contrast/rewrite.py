"""References of the same siblings written in other ways, and references with wrong statements."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sgcd.contrast.choose import split_by_outcome
from sgcd.contrast.leakage.masking import PLACEHOLDER_PATTERN
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.records import Group

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


_WRONG_SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of statements that are replaced by wrong ones."""
TextsByArm = dict[str, list[list[str]]]
"""For each arm and group the reference texts; an empty list when none could be written."""
CauseCounts = Counter[str]
"""How often each cause prevented a reference."""


async def rewrite_references(
    groups: Sequence[Group],
    own_references: Sequence[str],
    builder: ReferenceBuilder,
    built_in_writer: BuiltInWriter,
    *,
    seed: int,
) -> tuple[TextsByArm, CauseCounts]:
    """The texts of each arm, and the causes of missing ones.

    `builder` is the recipe's. `own_references` are those that gave the groups their credit. The built-in writer has an
    arm of its own when the recipe names another writer.
    """
    built_in_builder = replace(builder, writer=built_in_writer)
    causes = CauseCounts()
    texts_rewritten = await _build_all(builder, groups, causes)
    arms: TextsByArm = {"rewritten": texts_rewritten}
    if builder.writer.name != built_in_builder.writer.name:
        arms["built-in"] = await _build_all(built_in_builder, groups, causes)
    built_in = arms.get("built-in", texts_rewritten)
    arms["one pair"] = await _build_all(builder, groups, causes, only_siblings=[pick_pair(group) for group in groups])
    for name, part_lines in built_in_writer.parts.items():
        arms[name] = [["\n".join(text.splitlines()[part_lines]) for text in group_texts] for group_texts in built_in]
    arms["leave one out"] = await write_without_each(builder, groups, causes)
    arms["shuffled"] = (
        [[text] for text in [*own_references[1:], *own_references[:1]]] if len(own_references) > 1 else [[]]
    )
    for share in _WRONG_SHARES:
        references_of_others = [
            [text for text in own_references if text != own_reference] for own_reference in own_references
        ]
        corrupted = [
            [corrupt_reference(own_reference, share, foreign_references, seed=seed)]
            for own_reference, foreign_references in zip(own_references, references_of_others, strict=True)
        ]
        arms[f"errors {share:.0%}"] = corrupted
    return arms, causes


async def write_without_each(
    builder: ReferenceBuilder, groups: Sequence[Group], causes: CauseCounts
) -> list[list[str]]:
    """For each group one text per sibling, written without that sibling; fewer when the others are not mixed."""
    siblings_by_group = [[rollout.sibling for rollout in group.rollouts] for group in groups]
    texts = iter(
        await _build_all(
            builder,
            [group for group, siblings in zip(groups, siblings_by_group, strict=True) for _ in siblings],
            causes,
            only_siblings=[{*siblings} - {excluded} for siblings in siblings_by_group for excluded in siblings],
        )
    )
    return [[text for _ in siblings for text in next(texts)] for siblings in siblings_by_group]


def pick_pair(group: Group) -> list[int]:
    """The shortest success and the longest failure, as the writer takes them; among equals, the first."""
    rollouts, _ = split_by_outcome(group.rollouts) or (group.rollouts, None)
    success = min((rollout for rollout in rollouts if rollout.success), key=lambda rollout: len(rollout.response))
    failure = max((rollout for rollout in rollouts if not rollout.success), key=lambda rollout: len(rollout.response))
    return [success.sibling, failure.sibling]


async def _build_all(
    builder: ReferenceBuilder,
    groups: Sequence[Group],
    causes: CauseCounts,
    *,
    only_siblings: Sequence[Collection[int]] | None = None,
) -> list[list[str]]:
    """One reference text for each group, or none. All groups are written at once."""
    results = await asyncio.gather(
        *(
            builder.build(group, siblings)
            for group, siblings in zip(groups, only_siblings or [None] * len(groups), strict=True)
        )
    )
    causes.update(result.cause.partition(":")[0] for result in results if result.cause not in ("", "not mixed"))
    return [[result.reference.text] if result.reference else [] for result in results]
