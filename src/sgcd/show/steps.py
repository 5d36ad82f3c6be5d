"""Which steps and tasks the page shows, how many of them it has room for, and how their tokens are spelt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgcd.errors import FolderError, TemplateError
from sgcd.records import Ids, Scored
from sgcd.run import RunFolder
from sgcd.show import siblings as shown
from sgcd.show.siblings import Played, Spell, played
from sgcd.show.visible import visible
from sgcd.stored import Group

STEPS = 4
"""How many steps are shown when none is named."""
TOKENS = 40_000
"""Tokens on one page, at most; the first task of a step is shown in any case."""


@dataclass(slots=True)
class Step:
    """One step on the page."""

    step: int
    row: Mapping[str, Any]
    tasks: list[Played] = field(default_factory=list[Played])
    left_out: int = 0
    """Tasks that the step learnt from and for which the page has no room."""
    others: list[str] = field(default_factory=list[str])
    """Tasks that it did not learn from, in words."""
    remark: str = ""


def tokens_of(
    folder: RunFolder, metrics: Sequence[Mapping[str, Any]], steps: Sequence[int], spell: Spell
) -> tuple[list[Step], dict[str, Any], dict[str, float]]:
    """The chosen steps, the numbers of their tokens, and the bounds of the colours."""
    rows = {row["step"]: row for row in metrics}
    chosen = sorted(set(steps)) or spaced(folder.played(), STEPS)
    groups = {step: folder.read_rollouts(step) for step in chosen}
    scored = {step: credit(folder, step) for step in chosen}
    deserved = [one.credit for some in scored.values() for one in some.values()]
    bounds = {
        "advantage": max((float(np.abs(one.token_advantage).max(initial=0)) for one in deserved), default=0.0),
        "cap": max((one.cap for one in deserved), default=1.0),
        "floor": min((one.floor for one in deserved), default=1.0),
    }
    made: list[Step] = []
    numbers: dict[str, Any] = {}
    for step in chosen:
        made.append(Step(step, rows.get(step, {})))
        made[-1].others = [other(group) for group in groups[step] if not group.kept]
        kept = [group.siblings for group in groups[step] if group.kept]
        if kept and not scored[step]:
            made[-1].remark = "no credit of this step is on record"
        references = folder.read_references(step)
        room = TOKENS // len(chosen)
        for index, siblings in enumerate(kept):
            room -= shown.tokens(siblings)
            if index and room < 0:
                made[-1].left_out = len(kept) - index
                break
            key = f"{len(made)}.{index}"
            task, own = played(key, siblings, scored[step], references, spell, bounds["advantage"])
            made[-1].tasks.append(task)
            numbers |= own
    return made, numbers, bounds


def credit(folder: RunFolder, step: int) -> dict[str, Scored]:
    """Empty where a step learnt nothing or was stopped before it could."""
    try:
        return folder.read_credit(step)
    except FolderError:
        return {}


def other(group: Group) -> str:
    """A task that a step did not learn from."""
    won, all_ = sum(rollout.success for rollout in group.siblings.rollouts), len(group.siblings.rollouts)
    broken = f", {len(group.siblings.broken)} broken" if group.siblings.broken else ""
    return f"{visible(group.siblings.task.id)} ({won} of {all_} succeeded{broken})"


def spaced(steps: Sequence[int], count: int) -> list[int]:
    """The first, the last, and some evenly between.

    >>> spaced(range(1, 41), 4)
    [1, 14, 27, 40]
    """
    if len(steps) <= count:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (count - 1))] for index in range(count)]


def speller(folder: RunFolder) -> tuple[Spell, str]:
    """How ids are spelt, by the tokenizer in the run's own folder; without one they are shown as they are, and why."""
    from sgcd.chat import Chat

    saved = [folder.policy_path, *(folder.checkpoint_path(step) for step in reversed(folder.checkpoints()))]
    place = next((place for place in saved if place.is_dir()), None)
    if place is None:
        return as_ids, "Tokens are shown as ids: the run has no checkpoint yet, and so no tokenizer"
    try:
        chat = Chat.load(place)
    except (TemplateError, ModuleNotFoundError) as problem:
        return as_ids, f"Tokens are shown as ids: {visible(str(problem))}"
    return lambda ids: pieces(*chat.spell(ids)), ""


def pieces(text: str, spans: Any) -> list[str]:
    """The text of each token. A character that several make together is shown with the first."""
    found: list[str] = []
    at = 0
    for start, stop in spans.tolist():
        found.append(text[max(at, start) : stop] or "‥")
        at = max(at, stop)
    return found


def as_ids(ids: Ids) -> list[str]:
    return [f" {token}" for token in ids.tolist()]
