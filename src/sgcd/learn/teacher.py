"""The policy as its own teacher: it reads a reference first, and what it then makes of the very same tokens is kept.

Together with the student's pass, which every method needs for the ratio, this costs one forward pass: the teacher comes
first and leaves its likeliest ids and their log-probabilities, and the student is asked at those ids while its logits
are there. Both go through the same products and the same statistics, so that equal contexts differ by exactly nothing.
No gradient passes through either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgcd.contrast.insert import aligned
from sgcd.credit.divergence import divergence_of, entropy_of, observed_logp
from sgcd.credit.settings import Divergence
from sgcd.errors import RecordError
from sgcd.learn.batch import unflat
from sgcd.learn.head import head_of
from sgcd.learn.rows import ROOM
from sgcd.learn.scoring import forwards
from sgcd.learn.stats import stats_at, topk_stats
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
    model: Any,
    rollouts: Sequence[Rollout],
    rows: Sequence[Ids],
    temperature: float,
    tokens: int,
    k: int,
    room: int = ROOM,
) -> list[Lesson]:
    """One forward pass over `rows`: the rollouts as the teacher reads them, with a reference in each prompt."""
    shown = [after(rollout, row) for rollout, row in zip(rollouts, rows, strict=True)]
    found: dict[int, Lesson] = {}
    for part, (hidden, observed) in forwards(model, shown, tokens):
        top = topk_stats(hidden, head_of(model), observed, k, temperature, room)
        said = outcomes_at(top.ids, observed, top.logp, top.own, top.rest)
        lengths = [shown[index].written for index in part]
        parts = zip(*(whole.cpu().split(lengths) for whole in (observed, top.ids.int(), said)), strict=True)
        found |= {index: Lesson(*lesson) for index, lesson in zip(part, parts, strict=True)}
    return [found[index] for index in range(len(rollouts))]


def outcomes_at(ids: Tensor, observed: Tensor, logp: Tensor, own: Tensor, rest: Tensor) -> Tensor:
    """The K + 2 outcomes; the observed id's slot is empty where `ids` holds it already."""
    slot = own.masked_fill((ids == observed[:, None]).any(-1), float("-inf"))
    return torch.cat([logp, slot[:, None], rest[:, None]], dim=1)


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
    room: int = ROOM,
) -> Marks:
    """The student's pass, with each teacher's lessons (one list for a teacher, one entry for a rollout) beside it.

    Log-probabilities are those of `scoring.logps` to the last bit.
    """
    logp: dict[int, Floats] = {}
    features: list[dict[int, Features | None]] = [{} for _ in lessons]
    for part, (hidden, observed) in forwards(model, rollouts, tokens):
        some = [rollouts[index] for index in part]
        beside = [Beside(some, [teacher[index] for index in part], observed) for teacher in lessons]
        there = [teacher for teacher in beside if teacher.ids is not None]
        asked = [teacher.ids for teacher in there if teacher.ids is not None]
        said = stats_at(hidden, head_of(model), observed, asked, temperature, room)
        logp |= zip(part, unflat(said.own, some), strict=True)
        for teacher, (at, rest) in zip(there, said.at, strict=True):
            teacher.compare(at, said.own, rest, divergence)
        for seen, teacher in zip(features, beside, strict=True):
            seen |= zip(part, teacher.features, strict=True)
    order = range(len(rollouts))
    return Marks([logp[index] for index in order], [[seen[index] for index in order] for seen in features])


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
