"""A task's siblings as the page shows them: turn by turn, each token with its colours and its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgcd.records import Flags, Floats, Ids, Rollout, Scored, Siblings, Turn
from sgcd.show.looks import looks
from sgcd.show.visible import short, token, visible

Spell = Callable[[Ids], list[str]]
"""From the ids of a response to the text of each."""
Numbers = dict[str, Any]

HEAD, TAIL = 1_000, 500
"""Of the tokens that a sibling wrote, how many are shown from its beginning and from its end."""
SEEN = 1_200
"""Characters of one observation that are shown."""
ASKED = 3_000
"""Characters of one message of the prompt that are shown."""
WORDY = 40
"""Tokens in a turn from which on siblings need broad columns."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the policy wrote; `look` names its colour by weight, by divergence, by advantage and by kind."""

    before: str
    text: str
    after: str
    """The space that it begins with and the line end that it ends with are kept out of its colour."""
    look: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One turn of one sibling."""

    written: tuple[Token | str, ...]
    """Tokens; a string stands for some that are not shown."""
    concerns: tuple[str, ...]
    """What was wrong with its calls."""
    seen: str
    """What the policy was told next: an observation, and the glue of the template."""


@dataclass(frozen=True, slots=True)
class Column:
    """One sibling, from its outcome to its last turn."""

    key: str
    sibling: int
    outcome: str
    """success, failure or broken."""
    ending: str
    facts: tuple[tuple[str, str], ...]
    advantage: float | None
    weight: float | None
    """The mean over the tokens that it wrote."""
    above: float | None
    """The share of them with a weight above one."""
    even: bool
    """Every weight is one."""
    written: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """One task, what it asked, what its siblings did, and the reference that their contrast came to."""

    task: str
    category: str
    asked: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    turns: int
    wordy: bool
    """Turns are long."""
    reference: Mapping[str, Any] | None


def played(
    key: str,
    siblings: Siblings,
    scored: Mapping[str, Scored],
    references: Sequence[Mapping[str, Any]],
    spell: Spell,
    scale: float,
) -> tuple[Played, dict[str, Numbers]]:
    """A task for the page, and the numbers of its tokens by the key of each column.

    `key` begins the keys of its columns; `scale` is the token advantage that has the strongest colour.
    """
    best_first = sorted(siblings.rollouts, key=lambda rollout: not rollout.success)
    columns: list[Column] = []
    numbers: dict[str, Numbers] = {}
    for place, rollout in enumerate((*best_first, *siblings.broken)):
        own = scored.get(rollout.name)
        columns.append(_column(f"{key}.{place}", rollout, own, spell(rollout.response), scale))
        numbers[f"{key}.{place}"] = _numbers(rollout, own)
    first = next(iter((*siblings.rollouts, *siblings.broken)), None)
    told = next((row for row in references if row.get("task") == siblings.task.id), None)
    return Played(
        task=visible(siblings.task.id),
        category=siblings.task.category,
        asked=() if first is None else _asked(first),
        columns=tuple(columns),
        turns=max((len(column.cells) for column in columns), default=0),
        wordy=any(len(cell.written) > WORDY for column in columns for cell in column.cells),
        reference=told and _reference(told),
    ), numbers


def tokens(siblings: Siblings) -> int:
    """How many tokens the page would show of them."""
    return sum(min(rollout.written, HEAD + TAIL) for rollout in (*siblings.rollouts, *siblings.broken))


def _column(key: str, rollout: Rollout, scored: Scored | None, spelt: list[str], scale: float) -> Column:
    mask = rollout.mask
    weights = None if scored is None or not mask.any() else scored.credit.weight[mask]
    facts: Mapping[str, Any] = rollout.verdict.facts if rollout.verdict else {}
    how = "broken" if rollout.broken else "success" if rollout.success else "failure"
    return Column(
        key=key,
        sibling=rollout.sibling,
        outcome=how,
        ending=visible(rollout.broken) or rollout.ending.replace("_", " "),
        facts=tuple((visible(name), _fact(value)) for name, value in facts.items()),
        advantage=None if scored is None else scored.credit.advantage,
        weight=None if weights is None else float(weights.mean()),
        above=None if weights is None else float((weights > 1).mean()),
        even=weights is not None and bool((weights == 1).all()),
        written=rollout.written,
        cells=_cells(rollout, spelt, looks(rollout, scored, scale), shown(mask)),
    )


def shown(mask: Flags) -> Flags:
    """Which tokens of a response are shown: all that the policy wrote, or of a long one its head and its tail."""
    written = int(mask.sum())
    if written <= HEAD + TAIL:
        return mask
    rank = np.cumsum(mask) - 1
    return mask & ((rank < HEAD) | (rank >= written - TAIL))


def _cells(rollout: Rollout, spelt: list[str], look: list[str], show: Flags) -> tuple[Cell, ...]:
    starts = [turn.start for turn in rollout.turns[1:]] + [len(spelt)]
    return tuple(
        Cell(
            written=_written(range(turn.start, turn.stop), spelt, look, show),
            concerns=_concerns(turn),
            seen=short(visible("".join(spelt[turn.stop : start])).strip(), SEEN),
        )
        for turn, start in zip(rollout.turns, starts, strict=True)
    )


def _written(places: range, spelt: list[str], look: list[str], show: Flags) -> tuple[Token | str, ...]:
    parts: list[Token | str] = []
    left_out = 0
    for place in places:
        if show[place]:
            parts.append(_token(spelt[place], look[place], place == places.start))
        else:
            left_out += 1
            if place + 1 == places.stop or show[place + 1]:
                parts.append(f"{left_out:,} {'token is' if left_out == 1 else 'tokens are'} not shown")
                left_out = 0
    return tuple(parts)


def _token(spelt: str, look: str, first: bool) -> Token:
    """The first one of a turn needs no space before it."""
    text, after = token(spelt), ""
    if text.endswith("\n"):
        text, after = text[:-1], "\n"
    if text.startswith(" ") and text != " ":
        return Token("" if first else " ", text[1:], after, f"{look} s")
    return Token("", text, after, look)


def _concerns(turn: Turn) -> tuple[str, ...]:
    failed = [f"{visible(call.name)} answered with an error" for call in turn.calls if call.failed]
    return (*failed, *([f"could not be read: {visible(turn.malformed)}"] if turn.malformed else ()))


def _numbers(rollout: Rollout, scored: Scored | None) -> Numbers:
    """What stands behind each token that is shown, in their order; a number that all share is told once."""
    show = shown(rollout.mask)
    told: Numbers = {"place": np.flatnonzero(show).tolist(), "id": rollout.response[show].tolist()}
    if scored is None:
        return told
    told |= {"advantage": short_number(scored.credit.advantage), "weight": _short(scored.credit.weight[show])}
    if scored.features is not None:
        for name in ("divergence", "entropy", "gap"):
            told[name] = _short(getattr(scored.features, name)[show])
    if scored.saliency is not None:
        told["saliency"] = _short(scored.saliency[show])
    if scored.creditable is not None:
        told["masked"] = np.flatnonzero(~scored.creditable[show]).tolist()
    return told


def _short(values: Floats) -> Any:
    numbers = [short_number(float(value)) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def short_number(value: float) -> float | None:
    """Four digits that count; JSON knows no NaN."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _asked(rollout: Rollout) -> tuple[tuple[str, str], ...]:
    """The messages before the policy's first: who says what."""
    asked: list[tuple[str, str]] = []
    for message in rollout.messages:
        if message.get("role") == "assistant":
            break
        asked.append((visible(str(message.get("role"))), short(visible(str(message.get("content"))), ASKED)))
    return tuple(asked)


def _reference(row: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: visible(str(row.get(name) or "")) for name in ("text", "writer", "hash", "cause")}
    return told | {"literals": [visible(str(literal)) for literal in row.get("literals") or ()]}


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "✓" if value else "✗"
    return "-" if value is None else visible(str(value))
