"""The policy as its own teacher: it reads a reference first, and what it then makes of the very same tokens is kept.

Together with the student's pass, which every method needs for the ratio, this costs one forward pass: the teacher comes
first and leaves its likeliest ids and their log-probabilities, and the student is asked at those ids while its logits
are there. No gradient passes through either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.contrast.insert import aligned
from sgcd.credit.divergence import divergence_of, entropy_of, log_softmax, observed_logp, outcomes_of, top_ids
from sgcd.credit.settings import Divergence
from sgcd.errors import RecordError
from sgcd.learn.batch import unflat
from sgcd.learn.scoring import blocks, chosen, forwards
from sgcd.records import Features, Floats, Ids, Rollout


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says where a rollout was written, token by token: 8 bytes for each of K ids."""

    observed: Tensor
    """The ids that were written; the student's have to be the same."""
    ids: Tensor
    """[written, K]: the teacher's likeliest, ties to the lower id."""
    logp: Tensor
    """[written, K + 2]: log-probabilities of these, of the observed id, and of all others together."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What the student's pass leaves behind: for the ratio, and under each teacher for the method."""

    logp: list[Floats]
    features: list[list[Features | None]]
    """One list for each teacher, with None for rollouts that it has no lesson for."""


@torch.no_grad()
def teach(
    model: Any, rollouts: Sequence[Rollout], rows: Sequence[Ids], temperature: float, tokens: int, k: int
) -> list[Lesson]:
    """One forward pass over `rows`: the rollouts as the teacher reads them, with a reference in each prompt."""
    shown = [after(rollout, row) for rollout, row in zip(rollouts, rows, strict=True)]
    found: dict[int, Lesson] = {}
    for part, logits in forwards(model, shown, tokens):
        said: list[tuple[Tensor, Tensor, Tensor]] = []
        for _, z, observed in blocks(logits, temperature):
            ids = top_ids(z, k)
            said.append((observed.cpu(), ids.int().cpu(), outcomes_of(log_softmax(z), ids, observed).cpu()))
        lengths = [shown[index].written for index in part]
        parts = zip(*(torch.cat(arrays).split(lengths) for arrays in zip(*said, strict=True)), strict=True)
        found |= {index: Lesson(*lesson) for index, lesson in zip(part, parts, strict=True)}
    return [found[index] for index in range(len(rollouts))]


def after(rollout: Rollout, row: Ids) -> Rollout:
    """The same response after the teacher's prompt; refused unless the row differs by an insertion alone."""
    aligned(rollout, row, max(0, len(row) - len(rollout.prompt) - len(rollout.response)))
    return replace(rollout, prompt=row[: len(row) - len(rollout.response)])


@torch.no_grad()
def score(
    model: Any,
    rollouts: Sequence[Rollout],
    lessons: Sequence[Sequence[Lesson | None]],
    temperature: float,
    tokens: int,
    divergence: Divergence,
) -> Marks:
    """The student's pass, with each teacher's lessons (one list for a teacher, one entry for a rollout) beside it.

    Log-probabilities are those of `scoring.logps` to the last bit.
    """
    logp: dict[int, Floats] = {}
    features: list[dict[int, Features | None]] = [{} for _ in lessons]
    for part, logits in forwards(model, rollouts, tokens):
        some = [rollouts[index] for index in part]
        beside = [Beside(some, [teacher[index] for index in part], divergence) for teacher in lessons]
        own: list[Tensor] = []
        for here, z, observed in blocks(logits, temperature):
            student = log_softmax(z)
            own.append(chosen(student, observed))
            for teacher in beside:
                teacher.compare(here, student, observed)
        logp |= zip(part, unflat(torch.cat(own), some), strict=True)
        for seen, teacher in zip(features, beside, strict=True):
            seen |= zip(part, teacher.features(), strict=True)
    order = range(len(rollouts))
    return Marks([logp[index] for index in order], [[seen[index] for index in order] for seen in features])


class Beside:
    """One teacher's lessons beside the rows of one forward pass of the student."""

    def __init__(self, rollouts: Sequence[Rollout], lessons: Sequence[Lesson | None], divergence: Divergence) -> None:
        self._rollouts = rollouts
        self._lessons = lessons
        self._divergence: Divergence = divergence
        taught = np.repeat([lesson is not None for lesson in lessons], [rollout.written for rollout in rollouts])
        self._rows = np.flatnonzero(taught)
        there = [lesson for lesson in lessons if lesson]
        self._all = Lesson(*(torch.cat(part) for part in zip(*map(_parts, there), strict=True))) if there else None
        self._found: list[Tensor] = []

    def compare(self, here: slice, student: Tensor, observed: Tensor) -> None:
        """Divergence, entropy and gap of the student's rows `here`, as far as there is a lesson for them."""
        first, last = np.searchsorted(self._rows, [here.start, here.stop])
        if not self._all or first == last:
            return
        device = student.device
        y, ids, q = (part[first:last].to(device) for part in _parts(self._all))
        ids = ids.long()
        if last - first < len(student):
            rows = torch.from_numpy(self._rows[first:last] - here.start).to(device)
            student, observed = student[rows], observed[rows]
        self._same(y, observed)
        p = outcomes_of(student, ids, y)
        gap = observed_logp(q, ids, y) - observed_logp(p, ids, y)
        self._found.append(torch.stack([divergence_of(p, q, self._divergence), entropy_of(q), gap]))

    def features(self) -> list[Features | None]:
        """Of each rollout; zero where nothing was written."""
        taught = [rollout for rollout, lesson in zip(self._rollouts, self._lessons, strict=True) if lesson]
        found = torch.cat(self._found, dim=1) if self._found else torch.zeros(3, 0)
        laid = iter([Features(*three) for three in zip(*(unflat(row, taught) for row in found), strict=True)])
        return [next(laid) if lesson else None for lesson in self._lessons]

    def _same(self, theirs: Tensor, ours: Tensor) -> None:
        if not torch.equal(theirs, ours):
            first = int((theirs != ours).nonzero()[0])
            raise RecordError(
                f"scoring: teacher and student must be asked about the same ids, got {int(theirs[first])} and "
                f"{int(ours[first])}; a lesson belongs to the rollout that it was given for, and to no other"
            )


def _parts(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
    return lesson.observed, lesson.ids, lesson.logp
