"""Groups are taught as their references come, whichever comes first, and handed on in their own order."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from sgcd.contrast.reference import ReferenceResult
from sgcd.credit.methods import Needs
from sgcd.learn.policy.load import get_context_window
from sgcd.learn.scoring.teacher import TeacherTopK, score_teacher
from sgcd.learn.scoring.teacher_inputs import (
    TeacherInput,
    build_teacher_inputs,
    next_reference,
    with_other_reference,
    without_reference,
)
from sgcd.learn.training.context import RunContext, TrainConfig
from sgcd.learn.training.reference_prefetcher import ReferencePrefetcher
from sgcd.learn.training.timers import StepTimer
from sgcd.records import Group, Reference


@dataclass(frozen=True, slots=True)
class TeacherBatch:
    """A kept group with all that is known before the student reads it."""

    group: Group
    inputs: list[TeacherInput]
    """One for each rollout."""
    reference_result: ReferenceResult | None = None
    """None for a method that needs no reference."""
    teacher_topk: list[list[TeacherTopK | None]] = field(default_factory=list[list[TeacherTopK | None]])
    """Under the group's own reference and, every so often, under a neighbour's; one for each rollout."""


class TeacherScorer:
    """The groups of one step. The writers of other groups are waited for while the model is at work on these.

    In a step in which neighbours' references are read as well, no group is learnt before all are there.
    """

    def __init__(
        self,
        step: int,
        groups: Sequence[Group],
        referring: ReferencePrefetcher,
        plan: TrainConfig,
        living: RunContext,
        clock: StepTimer,
    ) -> None:
        self._groups = groups
        self._referring = referring
        self._scoring = plan.scoring
        self._temperature = plan.sampler.temperature
        self._living = living
        self._clock = clock
        self._model: Any = living.policy.model
        self._window = get_context_window(self._model.config)
        every = plan.scoring.shuffled_every
        self.reads_shuffled = bool(every) and step % every == 0
        """Whether neighbours' references are read as well in this step."""
        self._tasks: list[asyncio.Task[TeacherBatch]] = []

    async def __aenter__(self) -> "TeacherScorer":
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

    async def scored_groups(self) -> AsyncIterator[TeacherBatch]:
        """In the order of the groups."""
        if not self._tasks:
            for group in self._groups:
                yield TeacherBatch(group, without_reference(group.rollouts))
        for task in self._tasks:
            while not task.done():
                await asyncio.wait([each for each in self._tasks if not each.done()], return_when=FIRST_COMPLETED)
                for each in self._tasks:
                    if each.done():
                        each.result()  # whatever went wrong is known at once
            yield task.result()

    async def _one(self, index: int, needs: Needs) -> TeacherBatch:
        group = self._groups[index]
        taught = await self._clock.run_in_model_thread("teacher", self._teach, group, await self._told(group), needs)
        if self.reads_shuffled:
            others = [await self._told(each) for each in self._groups]
            taught.teacher_topk.append(
                await self._clock.run_in_model_thread(
                    "teacher", self._beside, taught, next_reference(index, others), needs
                )
            )
        return taught

    async def _told(self, group: Group) -> ReferenceResult:
        told = await self._referring.get(group)
        assert told is not None, "a method that needs references is given some"
        return told

    def _teach(self, group: Group, referred: ReferenceResult, needs: Needs) -> TeacherBatch:
        with self._clock.subphase("credit"):
            seen = build_teacher_inputs(group, referred, self._living.reference_builder, self._window)
        return TeacherBatch(group, seen, referred, [self._lessons(seen, needs)])

    def _beside(self, taught: TeacherBatch, other: Reference | None, needs: Needs) -> list[TeacherTopK | None]:
        """The lessons under a neighbour's reference."""
        with self._clock.subphase("credit"):
            seen = with_other_reference(taught.inputs, other, self._living.reference_builder, self._window)
        return self._lessons(seen, needs)

    def _lessons(self, seen: Sequence[TeacherInput], needs: Needs) -> list[TeacherTopK | None]:
        shown = [each.rollout for each in seen if each.input_ids is not None]
        rows = [each.input_ids for each in seen if each.input_ids is not None]
        how = self._temperature, self._scoring.micro_batch_tokens, needs.k, self._scoring.logits_bytes
        given = iter(score_teacher(self._model, shown, rows, *how))
        return [None if each.input_ids is None else next(given) for each in seen]
