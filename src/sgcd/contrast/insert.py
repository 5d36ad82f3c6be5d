"""Builds the teacher's input ids: the student's ids with the reference inserted into the prompt."""

from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from sgcd.chat import Chat
from sgcd.errors import RecordError
from sgcd.records import Rollout, TokenIds

REFERENCE_HEADER = "credit reference :"
REFERENCE_FOOTER = "end of reference ."
_NEUTRAL_TEXT = (
    "The words are in turns, and each of the turns has an end. All of it is as it is, and no more than it is."
)


@dataclass(frozen=True, slots=True)
class FittedReference:
    """The ids of a reference, and the number of lines that did not fit."""

    ids: TokenIds
    dropped_lines: int = 0


def encode_reference(chat: Chat, text: str) -> TokenIds:
    """The ids of a reference between header and footer, tokenized alone. Special tokens in the text are escaped."""
    return chat.encode_text(f"\n{REFERENCE_HEADER}\n{text}\n{REFERENCE_FOOTER}\n")


def write_neutral_text(reference: str) -> str:
    """A text with as many words and lines as a reference, which says nothing about any task.

    >>> write_neutral_text("Successful attempts call search\\nand then take.")
    'The words are in\\nturns, and each'
    """
    words = cycle(_NEUTRAL_TEXT.split())
    return "\n".join(" ".join(islice(words, len(line.split()))) for line in reference.splitlines())


def write_leaky_text(answer: str) -> str:
    """A text that gives an answer away: what a reference must never be, for study.

    >>> write_leaky_text("your tier is gold")
    'the final answer is : your tier is gold .'
    """
    return f"the final answer is : {answer} ."


def fit_reference(chat: Chat, text: str, max_tokens: int, *, min_tokens: int = 64) -> FittedReference | None:
    """A reference in at most `max_tokens` ids. A longer text loses lines from its end; the footer stays.

    None when the shortened reference has fewer than `min_tokens` ids.
    """
    lines = text.splitlines()
    for num_dropped in range(len(lines)):
        ids = encode_reference(chat, "\n".join(lines[: len(lines) - num_dropped]))
        if len(ids) <= max_tokens:
            return FittedReference(ids, num_dropped) if not num_dropped or len(ids) >= min_tokens else None
    return None


def insert_reference(prompt: TokenIds, reference_position: int, reference_ids: TokenIds) -> TokenIds:
    """prefix + reference + suffix, where prefix + suffix is the student's prompt."""
    return np.concatenate([prompt[:reference_position], reference_ids, prompt[reference_position:]]).astype(np.int32)


def build_teacher_input_ids(rollout: Rollout, reference_ids: TokenIds) -> TokenIds:
    """prefix + reference + suffix + response: the teacher's input for a rollout."""
    teacher_input_ids = np.concatenate(
        [insert_reference(rollout.prompt, rollout.reference_position, reference_ids), rollout.response]
    ).astype(np.int32)
    check_teacher_alignment(rollout, teacher_input_ids, len(reference_ids))
    return teacher_input_ids


def check_teacher_alignment(rollout: Rollout, teacher_input_ids: TokenIds, num_inserted: int) -> None:
    """Raise when the teacher's input is not the student's input with `num_inserted` ids at the reference position."""
    student_input_ids = np.concatenate([rollout.prompt, rollout.response])
    positions = np.arange(len(student_input_ids))
    positions[rollout.reference_position :] += num_inserted
    if len(teacher_input_ids) != len(student_input_ids) + num_inserted:
        raise RecordError(
            f"rollout {rollout.name}: the teacher's row must have {len(student_input_ids) + num_inserted} tokens, "
            f"{num_inserted} more than the student's, got {len(teacher_input_ids)}"
        )
    mismatches = np.flatnonzero(teacher_input_ids[positions] != student_input_ids)
    if len(mismatches):
        first_mismatch = int(mismatches[0])
        raise RecordError(
            f"rollout {rollout.name}: token {int(positions[first_mismatch])} of the teacher's row must be "
            f"{int(student_input_ids[first_mismatch])}, "
            f"as token {first_mismatch} of the student's is, got {int(teacher_input_ids[positions[first_mismatch]])}"
        )
