"""The student beside its teachers: what it makes of the same tokens without a reference, and where the two disagree.

With a gradient this is the training pass itself, and its numbers cost nothing; without one it is a pass of its own, for
whoever has to see a whole batch first. The numbers are the same, to the bit where both read the same micro-batches, and
none of them carries a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.credit.divergence import divergence_of, entropy_of, observed_logp
from sgcd.credit.settings import Divergence
from sgcd.errors import RecordError
from sgcd.learn.batch import grid, unflat
from sgcd.learn.head import head_of
from sgcd.learn.logprob import said_with_gradient
from sgcd.learn.rows import ROOM
from sgcd.learn.scoring import forwards, read
from sgcd.learn.stats import Said, stats_at
from sgcd.learn.teacher import Lesson, outcomes_at
from sgcd.records import Features, Floats, Rollout

Lessons = Sequence[Sequence[Lesson | None]]
"""One list for each teacher, one entry for each rollout."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What the student's pass leaves behind: for the ratio, and under each teacher for the method."""

    logp: list[Floats]
    features: list[list[Features | None]]
    """One list for each teacher, with None for rollouts that it has no lesson for."""


def asked(
    model: Any,
    rollouts: Sequence[Rollout],
    lessons: Lessons,
    temperature: float,
    divergence: Divergence,
    room: int = ROOM,
) -> tuple[Tensor, Tensor, Marks]:
    """One forward pass: log p(y_t) of every written token with a gradient, the entropy there, and the marks."""
    hidden, observed = read(model, grid(rollouts))
    beside = [Beside(rollouts, teacher, observed) for teacher in lessons]
    logp, said = said_with_gradient(hidden, head_of(model), observed, ids_of(beside), temperature, room)
    return logp, said.entropy, marks_of(said, rollouts, beside, divergence)


@torch.no_grad()
def score(
    model: Any,
    rollouts: Sequence[Rollout],
    lessons: Lessons,
    temperature: float,
    tokens: int,
    divergence: Divergence,
    room: int = ROOM,
) -> Marks:
    """The marks without a gradient, `tokens` in one forward pass. Log-probabilities are those of `scoring.logps`."""
    logp: dict[int, Floats] = {}
    features: list[dict[int, Features | None]] = [{} for _ in lessons]
    for part, (hidden, observed) in forwards(model, rollouts, tokens):
        some = [rollouts[index] for index in part]
        beside = [Beside(some, [teacher[index] for index in part], observed) for teacher in lessons]
        said = stats_at(hidden, head_of(model), observed, ids_of(beside), temperature, room)
        marks = marks_of(said, some, beside, divergence)
        logp |= zip(part, marks.logp, strict=True)
        for seen, under in zip(features, marks.features, strict=True):
            seen |= zip(part, under, strict=True)
    order = range(len(rollouts))
    return Marks([logp[index] for index in order], [[seen[index] for index in order] for seen in features])


def ids_of(beside: Sequence["Beside"]) -> tuple[Tensor, ...]:
    """Where the student is to be asked, for each teacher that taught anything."""
    return tuple(teacher.ids for teacher in beside if teacher.ids is not None)


def marks_of(said: Said, rollouts: Sequence[Rollout], beside: Sequence["Beside"], divergence: Divergence) -> Marks:
    """What one forward pass over `rollouts` said, laid beside each teacher's lessons."""
    there = [teacher for teacher in beside if teacher.ids is not None]
    for teacher, (at, rest) in zip(there, said.at, strict=True):
        teacher.compare(at, said.own, rest, divergence)
    return Marks(unflat(said.own, rollouts), [teacher.features for teacher in beside])


class Beside:
    """One teacher's lessons beside the rows of one forward pass of the student."""

    def __init__(self, rollouts: Sequence[Rollout], lessons: Sequence[Lesson | None], observed: Tensor) -> None:
        self._rollouts = rollouts
        self._lessons = lessons
        self._observed = observed
        self.features: list[Features | None] = [None] * len(rollouts)
        self.ids: Tensor | None = None
        """[rows, K]: where the student is to be asked; any ids for rollouts without a lesson. None without any."""
        there = [lesson for lesson in lessons if lesson]
        if not there:
            return
        taught = np.repeat([lesson is not None for lesson in lessons], [rollout.written for rollout in rollouts])
        self._taught = torch.from_numpy(taught).to(observed.device)
        theirs, ids, self._said = (
            torch.cat(part).to(observed.device) for part in zip(*map(_parts, there), strict=True)
        )
        self._same(theirs, observed[self._taught])
        self._ids = ids.long()
        self.ids = torch.arange(ids.shape[1], device=observed.device).repeat(len(observed), 1)
        self.ids[self._taught] = self._ids

    def compare(self, logp: Tensor, own: Tensor, rest: Tensor, divergence: Divergence) -> None:
        """Divergence, entropy and gap of the rows for which there is a lesson; zero where nothing was written."""
        here, ids, q = self._taught, self._ids, self._said
        y = self._observed[here]
        p = outcomes_at(ids, y, logp[here], own[here], rest[here])
        gap = observed_logp(q, ids, y) - observed_logp(p, ids, y)
        taught = [rollout for rollout, lesson in zip(self._rollouts, self._lessons, strict=True) if lesson]
        laid = (unflat(row, taught) for row in (divergence_of(p, q, divergence), entropy_of(q), gap))
        found = iter([Features(*three) for three in zip(*laid, strict=True)])
        self.features = [next(found) if lesson else None for lesson in self._lessons]

    def _same(self, theirs: Tensor, ours: Tensor) -> None:
        if not torch.equal(theirs, ours):
            first = int((theirs != ours).nonzero()[0])
            raise RecordError(
                f"scoring: teacher and student must be asked about the same ids, got {int(theirs[first])} and "
                f"{int(ours[first])}; a lesson belongs to the rollout that it was given for, and to no other"
            )


def _parts(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
    return lesson.observed, lesson.ids, lesson.logp
