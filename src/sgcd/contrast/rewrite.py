"""Writes other references of the same groups, for `sgcd references compare`."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from sgcd.contrast.corrupt import corrupt_reference
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.records import Group

_WRONG_SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of statements that are replaced by wrong ones."""
_TEMPLATE_PARTS = {"what to do": slice(0, 2), "deviations": slice(3, 4)}
"""Parts of the built-in writer's reference that make an arm of their own."""
TextsByArm = dict[str, list[list[str]]]
"""For each arm and group the reference texts; an empty list when none could be written."""
CauseCounts = Counter[str]
"""How often each cause prevented a reference."""


async def rewrite_references(
    groups: Sequence[Group], own_references: Sequence[str], builder: ReferenceBuilder, *, seed: int
) -> tuple[TextsByArm, CauseCounts]:
    """The texts of each arm, and the causes of missing ones.

    `builder` is the recipe's. `own_references` are those that gave the groups their credit. The built-in writer has an
    arm of its own when the recipe names another writer.
    """
    built_in_builder = replace(builder, writer=BuiltInWriter())
    causes = CauseCounts()
    texts_rewritten = await _build_all(builder, groups, causes)
    arms: TextsByArm = {"rewritten": texts_rewritten}
    if builder.writer.name != built_in_builder.writer.name:
        arms["built-in"] = await _build_all(built_in_builder, groups, causes)
    built_in = arms.get("built-in", texts_rewritten)
    arms["one pair"] = await _build_all(builder, groups, causes, only_siblings=[pick_pair(group) for group in groups])
    for name, part_lines in _TEMPLATE_PARTS.items():
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
    """The shortest success and the longest failure; among equals, the first."""
    success = min((rollout for rollout in group.rollouts if rollout.success), key=lambda rollout: len(rollout.response))
    failure = max(
        (rollout for rollout in group.rollouts if not rollout.success), key=lambda rollout: len(rollout.response)
    )
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
