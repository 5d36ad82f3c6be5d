"""Kept siblings with what the teacher is to read of each, and which of their tokens may have credit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgcd.contrast.insert import teacher_row
from sgcd.contrast.literals import creditable
from sgcd.contrast.refer import Contrast, Referred
from sgcd.records import Flags, Ids, Reference, Rollout, Siblings


@dataclass(frozen=True, slots=True)
class Contrasted:
    """One rollout of a kept group beside its reference."""

    rollout: Rollout
    row: Ids | None
    """prefix + reference + suffix + response; None where there is no reference or no room for it."""
    creditable: Flags
    missing: int = 0
    """Lines that the reference lost to the model's window."""
    tokens: int = 0
    """Of the reference in this row."""
    without: str = ""
    """Why there is no row: no_reference or no_room."""


def contrasted(group: Siblings, told: Referred, contrast: Contrast, window: int) -> list[Contrasted]:
    """Every rollout of a group, in order."""
    found: list[Contrasted] = []
    for rollout in group.rollouts:
        flags = np.ones(len(rollout.response), np.bool_)
        if told.reference:
            flags = creditable(rollout, told.literals, contrast.chat)
        found.append(shown(rollout, told.reference, flags, contrast, window))
    return found


def plain(rollouts: Sequence[Rollout]) -> list[Contrasted]:
    """For a method that contrasts nothing."""
    return [Contrasted(rollout, None, np.ones(len(rollout.response), np.bool_)) for rollout in rollouts]


def shown(rollout: Rollout, reference: Reference | None, flags: Flags, contrast: Contrast, window: int) -> Contrasted:
    """The rollout after a prompt with the reference, as far as the window has room; the response is never cut."""
    if reference is None:
        return Contrasted(rollout, None, flags, without="no_reference")
    fitted = contrast.fit(reference, window - len(rollout.prompt) - len(rollout.response))
    if fitted is None:
        return Contrasted(rollout, None, flags, without="no_room")
    row = teacher_row(rollout, fitted.ids)
    return Contrasted(rollout, row, flags, fitted.missing, len(fitted.ids))


def neighbour(index: int, referred: Sequence[Referred]) -> Reference | None:
    """The reference of the next group that has one, if it is another group."""
    having = [other for other, told in enumerate(referred) if told.reference]
    following = sorted(having, key=lambda other: (other <= index, other))
    return referred[following[0]].reference if following and following[0] != index else None


def under(own: Sequence[Contrasted], other: Reference | None, contrast: Contrast, window: int) -> list[Contrasted]:
    """The same rollouts with another group's reference, where they had a row of their own."""
    return [
        shown(mine.rollout, other if mine.row is not None else None, mine.creditable, contrast, window) for mine in own
    ]


def references(referred: Sequence[Referred], rollouts: Sequence[Contrasted]) -> dict[str, Any]:
    """How many groups got a reference, why others did not, and how it went in."""
    rows = [each for each in rollouts if each.row is not None]
    causes = Counter(told.cause.partition(":")[0] for told in referred if told.cause)
    return {
        "groups": len(referred),
        "written": sum(told.reference is not None for told in referred),
        "causes": dict(causes.most_common()),
        "refused": dict(Counter(why.partition(":")[0] for told in referred for why in told.refused).most_common()),
        "example": next((told.cause for told in referred if told.cause), ""),
        "replaced": sum(told.replaced for told in referred),
        "rollouts": len(rows),
        "shortened": sum(each.missing > 0 for each in rows),
        "no_room": sum(each.without == "no_room" for each in rollouts),
        "tokens": sum(each.tokens for each in rows),
    }
