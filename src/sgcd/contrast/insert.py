"""A reference enters the teacher's prompt as ids, and nothing else of the row changes."""

from dataclasses import dataclass

import numpy as np

from sgcd.chat import Chat
from sgcd.errors import RecordError
from sgcd.records import Ids, Rollout

HEADER = "credit reference :"
FOOTER = "end of reference ."


@dataclass(frozen=True, slots=True)
class Fitted:
    """A reference as ids, and how many of its lines did not fit."""

    ids: Ids
    missing: int = 0


def block(chat: Chat, text: str) -> Ids:
    """The ids of a delimited reference, tokenised in isolation; special tokens inside it are escaped."""
    return chat.words(f"\n{HEADER}\n{text}\n{FOOTER}\n")


def fit(chat: Chat, text: str, room: int, least: int = 64) -> Fitted | None:
    """The block of a reference in at most `room` ids: too long a text loses lines from its end, never the footer.

    None when what would be left of it has fewer than `least` ids: so little is not worth a teacher.
    """
    lines = text.splitlines()
    for missing in range(len(lines)):
        ids = block(chat, "\n".join(lines[: len(lines) - missing]))
        if len(ids) <= room:
            return Fitted(ids, missing) if not missing or len(ids) >= least else None
    return None


def insert(prompt: Ids, insert_at: int, reference: Ids) -> Ids:
    """prefix + reference + suffix, where prefix + suffix is the prompt as it was."""
    return np.concatenate([prompt[:insert_at], reference, prompt[insert_at:]]).astype(np.int32)


def teacher_row(rollout: Rollout, reference: Ids) -> Ids:
    """prefix + reference + suffix + response: what the teacher reads of a rollout (method.md 6(f))."""
    row = np.concatenate([insert(rollout.prompt, rollout.insert_at, reference), rollout.response]).astype(np.int32)
    aligned(rollout, row, len(reference))
    return row


def aligned(rollout: Rollout, row: Ids, inserted: int) -> None:
    """Refuse a teacher's row that is not, but for `inserted` ids at the rollout's place, the student's row."""
    student = np.concatenate([rollout.prompt, rollout.response])
    places = np.arange(len(student))
    places[rollout.insert_at :] += inserted
    if len(row) != len(student) + inserted:
        raise RecordError(
            f"rollout {rollout.name}: the teacher's row must have {len(student) + inserted} tokens, "
            f"{inserted} more than the student's, got {len(row)}"
        )
    wrong = np.flatnonzero(row[places] != student)
    if len(wrong):
        first = int(wrong[0])
        raise RecordError(
            f"rollout {rollout.name}: token {int(places[first])} of the teacher's row must be {int(student[first])}, "
            f"as token {first} of the student's is, got {int(row[places[first]])}"
        )
