"""The same siblings, written of in other ways: what a comparison of references puts in place of a group's own."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from sgcd.contrast.corrupt import corrupt
from sgcd.contrast.refer import Contrast
from sgcd.contrast.write import BuiltIn
from sgcd.records import Siblings

ERRORS = (0.1, 0.25, 0.5, 1.0)
"""Shares of wrong statements."""
PARTS = {"what to do": slice(0, 2), "deviations": slice(3, 4)}
"""Of the built-in writer's five parts: other prompts, as it were."""
Arms = dict[str, list[list[str]]]
"""By arm, for each group: the texts that it has; none where nothing could be written."""
Causes = Counter[str]
"""Why nothing could be written, and how often."""


async def rewritten(
    groups: Sequence[Siblings], own: Sequence[str], contrast: Contrast, seed: int
) -> tuple[Arms, Causes]:
    """Every arm, and what went wrong; that of the built-in writer by itself where the recipe has another.

    `contrast` is the recipe's; `own` are the references that the groups were credited with.
    """
    plain = replace(contrast, writer=BuiltIn())
    causes = Causes()
    written = await _all(contrast, groups, causes)
    arms: Arms = {"rewritten": written}
    if contrast.writer.name != plain.writer.name:
        arms["built-in"] = await _all(plain, groups, causes)
    built_in = arms.get("built-in", written)
    arms["one pair"] = await _all(contrast, groups, causes, [pair(group) for group in groups])
    for name, part in PARTS.items():
        arms[name] = [["\n".join(text.splitlines()[part]) for text in some] for some in built_in]
    arms["leave one out"] = await left_out(contrast, groups, causes)
    arms["shuffled"] = [[text] for text in [*own[1:], *own[:1]]] if len(own) > 1 else [[]]
    for share in ERRORS:
        others = [[text for text in own if text != mine] for mine in own]
        spoilt = [[corrupt(mine, share, foreign, seed)] for mine, foreign in zip(own, others, strict=True)]
        arms[f"errors {share:.0%}"] = spoilt
    return arms, causes


async def left_out(contrast: Contrast, groups: Sequence[Siblings], causes: Causes) -> list[list[str]]:
    """Of each group one text for each sibling, written without it; none where nothing would contrast any more."""
    everyone = [[one.sibling for one in group.rollouts] for group in groups]
    asked = [(group, {*some} - {out}) for group, some in zip(groups, everyone, strict=True) for out in some]
    found = iter(await _all(contrast, [group for group, _ in asked], causes, [only for _, only in asked]))
    return [[text for _ in some for text in next(found)] for some in everyone]


def pair(group: Siblings) -> list[int]:
    """The shortest success and the longest failure, the lower sibling among equals."""
    good = min((one for one in group.rollouts if one.success), key=lambda one: len(one.response))
    bad = max((one for one in group.rollouts if not one.success), key=lambda one: len(one.response))
    return [good.sibling, bad.sibling]


async def _all(
    contrast: Contrast, groups: Sequence[Siblings], causes: Causes, only: Sequence[Collection[int]] | None = None
) -> list[list[str]]:
    chosen = only or [None] * len(groups)
    referred = await asyncio.gather(*(contrast.refer(*both) for both in zip(groups, chosen, strict=True)))
    causes.update(one.cause.partition(":")[0] for one in referred if one.cause not in ("", "not mixed"))
    return [[one.reference.text] if one.reference else [] for one in referred]
