"""From kept siblings to what they deserve: the teacher reads first, then the student, then the method is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgcd.contrast.refer import Referred
from sgcd.credit.advantage import advantages
from sgcd.credit.methods import Needs
from sgcd.learn.clock import Clock, think
from sgcd.learn.contrasted import Contrasted, contrasted, neighbours, plain, references
from sgcd.learn.ledger import Deserved, ledger, overlap
from sgcd.learn.living import Living, Plan
from sgcd.learn.policy import window_of
from sgcd.learn.scoring import logps
from sgcd.learn.teacher import Lesson, Marks, score, teach
from sgcd.records import Features, Floats, Rollout, Siblings

Seen = Sequence[Features | None]


@dataclass(frozen=True, slots=True)
class Credited:
    """What a batch deserves, one entry for each rollout, and the log-probabilities that its ratios start from."""

    deserved: list[Deserved]
    logp: list[Floats]
    told: dict[str, Any] = field(default_factory=dict[str, Any])
    """For the metrics; empty for a method that needs no reference."""


class Dense:
    """Knows of the method only what it needs: nothing, or features under a reference."""

    def __init__(self, plan: Plan, living: Living, clock: Clock) -> None:
        self._plan = plan
        self._living = living
        self._clock = clock
        self._model: Any = living.policy.model

    async def of(self, step: int, groups: Sequence[Siblings], referred: Sequence[Referred]) -> Credited:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        needs = self._living.method.needs
        if needs is None:
            with self._clock.phase("scoring"):
                logp = await self.logps(self._model, rollouts)
            with self._clock.phase("credit"):
                return Credited(self._deserve(groups, plain(rollouts), (), ()), logp)
        with self._clock.phase("credit"):
            seen, others = self._contrasted(step, groups, referred)
        marks = await self._marks(rollouts, [teacher for teacher in (seen, others) if teacher], needs)
        with self._clock.phase("credit"):
            deserved = self._deserve(groups, seen, *marks.features)
            told = {"reference": references(referred, seen), "credit": ledger(deserved, needs.weighs)}
            told["credit"]["method"] = self._living.method.state()
            if others:
                told["credit"]["shuffled"] = overlap(deserved)
        return Credited(deserved, marks.logp, told)

    async def logps(self, model: Any, rollouts: Sequence[Rollout]) -> list[Floats]:
        plan = self._plan
        how = (plan.sampler.temperature, plan.scoring.tokens, plan.scoring.bytes)
        return await think(self._living.thread, logps, model, rollouts, *how)

    def _contrasted(
        self, step: int, groups: Sequence[Siblings], referred: Sequence[Referred]
    ) -> tuple[list[Contrasted], list[Contrasted]]:
        """What the teacher is to read of each rollout; every so often, also with a neighbour's reference."""
        window = window_of(self._model.config)
        seen = contrasted(groups, referred, self._living.contrast, window)
        every = self._plan.scoring.shuffled
        if not every or step % every:
            return seen, []
        return seen, neighbours(groups, referred, seen, self._living.contrast, window)

    async def _marks(
        self, rollouts: Sequence[Rollout], teachers: Sequence[Sequence[Contrasted]], needs: Needs
    ) -> Marks:
        thread, how = self._living.thread, (self._plan.sampler.temperature, self._plan.scoring.tokens)
        room, lessons = self._plan.scoring.bytes, list[list[Lesson | None]]()
        with self._clock.phase("teacher"):
            for seen in teachers:
                shown = [each.rollout for each in seen if each.row is not None]
                rows = [each.row for each in seen if each.row is not None]
                given = iter(await think(thread, teach, self._model, shown, rows, *how, needs.k, room))
                lessons.append([None if each.row is None else next(given) for each in seen])
        with self._clock.phase("scoring"):
            return await think(thread, score, self._model, rollouts, lessons, *how, needs.divergence, room)

    def _deserve(
        self, groups: Sequence[Siblings], seen: Sequence[Contrasted], features: Seen, others: Seen = ()
    ) -> list[Deserved]:
        """Advantages within each group, and what the method makes of them for each token."""
        method, trust, nothing = self._living.method, self._plan.surrogate, [None] * len(seen)
        features, others = features or nothing, others or nothing
        method.calibrate([(s.rollout, f, s.creditable) for s, f in zip(seen, features, strict=True) if f])
        better = np.concatenate(
            [advantages([rollout.reward for rollout in group.rollouts], trust.baseline, trust.std) for group in groups]
        )
        deserved: list[Deserved] = []
        for each, advantage, own, other in zip(seen, better, features, others, strict=True):
            asked = (each.rollout, float(advantage))
            explained = method.explain(*asked, own, each.creditable)
            shuffled = method.explain(*asked, other, each.creditable) if other else None
            deserved.append(Deserved(each.rollout, explained, own, each.creditable, each.without, shuffled))
        return deserved
