"""Groups are taught as their references come, whichever comes first, and handed on in their own order."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from sgcd.contrast.refer import Referred
from sgcd.credit.methods import Needs
from sgcd.learn.clock import Clock
from sgcd.learn.contrasted import Contrasted, contrasted, neighbour, plain, under
from sgcd.learn.living import Living, Plan
from sgcd.learn.policy import window_of
from sgcd.learn.referring import Referring
from sgcd.learn.teacher import Lesson, teach
from sgcd.records import Reference, Siblings


@dataclass(frozen=True, slots=True)
class Taught:
    """A kept group with all that is known before the student reads it."""

    group: Siblings
    seen: list[Contrasted]
    """One for each rollout."""
    referred: Referred | None = None
    """None for a method that needs no reference."""
    lessons: list[list[Lesson | None]] = field(default_factory=list[list[Lesson | None]])
    """Under the group's own reference and, every so often, under a neighbour's; one for each rollout."""


class Teaching:
    """The groups of one step. The writers of other groups are waited for while the model is at work on these.

    In a step in which neighbours' references are read as well, no group is learnt before all are there.
    """

    def __init__(
        self, step: int, groups: Sequence[Siblings], referring: Referring, plan: Plan, living: Living, clock: Clock
    ) -> None:
        self._groups = groups
        self._referring = referring
        self._scoring = plan.scoring
        self._temperature = plan.sampler.temperature
        self._living = living
        self._clock = clock
        self._model: Any = living.policy.model
        self._window = window_of(self._model.config)
        every = plan.scoring.shuffled
        self.shuffled = bool(every) and step % every == 0
        """Whether neighbours' references are read as well in this step."""
        self._tasks: list[asyncio.Task[Taught]] = []

    async def __aenter__(self) -> "Teaching":
        needs = self._living.method.needs
        if needs:
            self._tasks = [asyncio.create_task(self._one(index, needs)) for index in range(len(self._groups))]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def taught(self) -> AsyncIterator[Taught]:
        """In the order of the groups."""
        if not self._tasks:
            for group in self._groups:
                yield Taught(group, plain(group.rollouts))
        for task in self._tasks:
            while not task.done():
                await asyncio.wait([each for each in self._tasks if not each.done()], return_when=FIRST_COMPLETED)
                for each in self._tasks:
                    if each.done():
                        each.result()  # whatever went wrong is known at once
            yield task.result()

    async def _one(self, index: int, needs: Needs) -> Taught:
        group = self._groups[index]
        taught = await self._clock.think("teacher", self._teach, group, await self._told(group), needs)
        if self.shuffled:
            others = [await self._told(each) for each in self._groups]
            taught.lessons.append(
                await self._clock.think("teacher", self._beside, taught, neighbour(index, others), needs)
            )
        return taught

    async def _told(self, group: Siblings) -> Referred:
        told = await self._referring.of(group)
        assert told is not None, "a method that needs references is given some"
        return told

    def _teach(self, group: Siblings, referred: Referred, needs: Needs) -> Taught:
        with self._clock.part("credit"):
            seen = contrasted(group, referred, self._living.contrast, self._window)
        return Taught(group, seen, referred, [self._lessons(seen, needs)])

    def _beside(self, taught: Taught, other: Reference | None, needs: Needs) -> list[Lesson | None]:
        """The lessons under a neighbour's reference."""
        with self._clock.part("credit"):
            seen = under(taught.seen, other, self._living.contrast, self._window)
        return self._lessons(seen, needs)

    def _lessons(self, seen: Sequence[Contrasted], needs: Needs) -> list[Lesson | None]:
        shown = [each.rollout for each in seen if each.row is not None]
        rows = [each.row for each in seen if each.row is not None]
        how = self._temperature, self._scoring.tokens, needs.k, self._scoring.bytes
        given = iter(teach(self._model, shown, rows, *how))
        return [None if each.row is None else next(given) for each in seen]
