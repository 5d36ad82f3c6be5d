"""The strip of a long rollout: one mark a turn, as strong as the turn's part of the weight above one."""

from dataclasses import dataclass

import numpy as np

from sgcd.credit_records import CreditRecord
from sgcd.records import Rollout, Turn
from sgcd.show.escape_text import escape_text

LONG_TURNS = 12
"""A task with more turns has strips, and its rows without credit are folded."""
_LEVELS = 9


@dataclass(frozen=True, slots=True)
class StripMark:
    """One turn."""

    turn: int
    """From 1."""
    level: int
    """From 0, no weight above one, to 9, all of it."""
    has_calls: bool
    has_problem: bool
    title: str


def build_strip(rollout: Rollout, credit_record: CreditRecord | None) -> tuple[StripMark, ...]:
    """A mark for each turn of a rollout."""
    if credit_record is None:
        extra = np.zeros(len(rollout.response))
    else:
        extra = np.maximum(credit_record.credit.weight.astype(np.float64) - 1, 0) * rollout.response_mask
    total = float(extra.sum())
    marks: list[StripMark] = []
    for number, turn in enumerate(rollout.turns, start=1):
        share = float(extra[turn.start : turn.stop].sum()) / total if total else 0.0
        words = [f"turn {number}", _describe_acts(turn)]
        words += [f"{100 * share:.0f} % of the weight above one"] if share else []
        has_problem = bool(turn.malformed) or any(call.is_error for call in turn.calls)
        level = max(1, round(_LEVELS * share)) if share else 0
        marks.append(StripMark(number, level, bool(turn.calls), has_problem, ", ".join(words)))
    return tuple(marks)


def _describe_acts(turn: Turn) -> str:
    if turn.malformed:
        return "a call that could not be read"
    return escape_text(", ".join(f"calls {call.name}" for call in turn.calls)) or "says something"
