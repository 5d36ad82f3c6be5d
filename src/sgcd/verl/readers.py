"""Read a teacher's and the student's logits of a micro-batch inside verl's workers: a few numbers a token come out.

The teacher reads first and leaves its likeliest ids in the worker. The student is read at those ids in the pass that
verl makes anyway for the old log-probabilities.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sgcd.credit.divergence import divergence_of, entropy_of, observed_logprob_of, outcomes, top_ids
from sgcd.settings import Divergence

FEATURES = ("divergence", "entropy", "gap")
TEACHER_PROMPT = "sgcd_teacher_prompt_"
"""Field of a row: the ids that the teacher of this number reads before the response."""
ROW = "sgcd_row"
"""Field of a row: its number in the batch."""
_CHUNK_BYTES = 2**28
"""Of logits in float32 that are compared at a time."""


def feature_name(feature: str, teacher: int) -> str:
    """Field of a row: one number for each of its tokens."""
    return f"sgcd_{feature}_{teacher}"


@dataclass(slots=True)
class TeacherReader:
    """Keeps a teacher's likeliest ids and its log-probabilities [tokens, K + 2], by row."""

    k: int
    ids: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    outcome_logprobs: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def __call__(self, *, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        """verl's two calls: with the logits of a micro-batch, then for its loss, which is nothing here."""
        if student_logits is None:
            return torch.zeros(()), {}
        for row, positions in policy_positions(data):
            parts: list[tuple[Tensor, Tensor]] = []
            for logits, observed in iter_policy_logits(student_logits[0], data["input_ids"].values(), positions):
                ids = top_ids(logits, self.k)
                parts.append((ids.cpu(), outcomes(logits, ids, observed).cpu()))
            self.ids[row], self.outcome_logprobs[row] = (torch.cat(part) for part in zip(*parts, strict=True))
        return {}


@dataclass(slots=True)
class StudentReader:
    """Compares the student with each teacher at the teacher's ids."""

    teachers: list[TeacherReader]
    divergence: Divergence

    def __call__(self, *, data: Any, student_logits: Tensor | None = None, **_: Any) -> Any:
        if student_logits is None:
            return torch.zeros(()), {}
        logits_of_batch, input_ids = student_logits[0], data["input_ids"].values()
        size = (1, len(logits_of_batch))
        names = [feature_name(feature, number) for number in range(len(self.teachers)) for feature in FEATURES]
        result = {name: torch.zeros(size, device=logits_of_batch.device) for name in names}
        for row, positions in policy_positions(data):
            start = 0
            for logits, observed in iter_policy_logits(logits_of_batch, input_ids, positions):
                stop = start + len(logits)
                for number, teacher in enumerate(self.teachers):
                    ids, q = (
                        kept[row][start:stop].to(logits.device) for kept in (teacher.ids, teacher.outcome_logprobs)
                    )
                    p = outcomes(logits, ids, observed)
                    gap = observed_logprob_of(q, ids, observed) - observed_logprob_of(p, ids, observed)
                    values = (divergence_of(p, q, self.divergence), entropy_of(q), gap)
                    for feature, value in zip(FEATURES, values, strict=True):
                        result[feature_name(feature, number)][0, positions[start:stop]] = value.float()
                start = stop
        return result


def policy_positions(data: Any) -> Iterator[tuple[int, Tensor]]:
    """Of each row of a micro-batch: its number, and the places of the logits that predict what the policy wrote."""
    ends = data["input_ids"].offsets()[1:].tolist()
    for row, end, mask in zip(data[ROW].tolist(), ends, data["response_mask"].unbind(), strict=True):
        yield row, mask.nonzero().flatten() + (end - len(mask) - 1)


def iter_policy_logits(logits: Tensor, input_ids: Tensor, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits at these places in float32, and the ids that were written after them, a few at a time."""
    size = max(1, _CHUNK_BYTES // (4 * logits.shape[-1]))
    for part in positions.split(size):
        yield logits[part].float(), input_ids[part + 1]
