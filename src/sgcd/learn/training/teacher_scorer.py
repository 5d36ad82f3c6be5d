"""Writes the references of one step and scores its teachers, in the background; yields groups in task order."""

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.contrast.text_thread import run_in_text_thread
from sgcd.credit.methods import Needs
from sgcd.credit_records import OWN_REFERENCE, Teacher
from sgcd.learn.policy.load import get_context_window
from sgcd.learn.policy.teacher_policies import TeacherPolicies
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.teacher import TeacherOutcomes, add_other_logprobs, score_at_topk, score_teacher
from sgcd.learn.scoring.teacher_contexts import (
    refer_to_answers,
    refer_to_siblings,
    refer_to_skill,
    refer_without_self,
)
from sgcd.learn.scoring.teacher_inputs import (
    TeacherInput,
    as_student,
    build_teacher_inputs,
    empty_teacher_inputs,
    find_next_result,
    neutral_reference,
    require_other,
    with_other_reference,
    with_references,
    with_student_prompt,
)
from sgcd.learn.training.timers import StepTimer
from sgcd.records import Group, Reference

NEXT_REFERENCE = Teacher(context="next_reference")
"""A control: the teacher reads the next group's reference."""
SWAPPED_REFERENCE = Teacher(context="swapped")
"""A control: the teacher reads the group's reference with success and failure exchanged."""


class ReferencePrefetcher:
    """Writes this step's references in the background. On exit, cancels the writers whose result nobody needs."""

    def __init__(self, builder: ReferenceBuilder | None, *, with_swapped: bool = False) -> None:
        self._builder = builder
        """None for a method that needs no reference."""
        self._with_swapped = with_swapped
        self._tasks: dict[str, asyncio.Task[ReferenceResult]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await _cancel_all(list(self._tasks.values()))

    def prefetch(self, group: Group) -> None:
        """Start a writer for a mixed group."""
        if self._builder and group.task.id not in self._tasks:
            self._tasks[group.task.id] = asyncio.create_task(
                self._builder.build(group, with_swapped=self._with_swapped)
            )

    async def get(self, group: Group) -> ReferenceResult | None:
        """The result for a group; None for a method that needs no reference."""
        self.prefetch(group)
        return await self._tasks[group.task.id] if self._builder else None


class ReferenceSource(Protocol):
    """Where the scorer gets a group's reference from: the prefetcher, or a test."""

    async def get(self, group: Group) -> ReferenceResult | None: ...


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A kept group with its teachers' scores; the student has not read it yet."""

    group: Group
    inputs: list[TeacherInput]
    """One for each rollout, under the group's own reference."""
    reference_result: ReferenceResult | None = None
    """None for a method that needs no reference."""
    teacher_outcomes: dict[Teacher, list[TeacherOutcomes | None]] = field(
        default_factory=dict[Teacher, list[TeacherOutcomes | None]]
    )
    """By teacher, one entry for each rollout; None where it had no reference or no room."""


@dataclass(kw_only=True)
class TeacherScorer:
    """Scores each group with the teachers as soon as its reference is ready; yields groups in task order.

    In a step that reads the next group's reference, a group waits until the references of all groups are ready.
    """

    groups: Sequence[Group]
    needs: Needs | None
    model: Any
    policies: TeacherPolicies
    references: ReferenceSource
    reference_builder: ReferenceBuilder
    forward_config: ForwardConfig
    timer: StepTimer
    samples_reading: bool = False
    """Score `NEXT_REFERENCE` and `SWAPPED_REFERENCE` as well, if the method reads its own references."""

    def __post_init__(self) -> None:
        teachers = self.needs.teachers if self.needs else ()
        self.samples_reading = self.samples_reading and OWN_REFERENCE in teachers
        if self.samples_reading:
            teachers = (*teachers, NEXT_REFERENCE, SWAPPED_REFERENCE)
        self.teachers: tuple[Teacher, ...] = tuple(dict.fromkeys(teachers))
        self._tasks: list[asyncio.Task[ScoredGroup]] = []

    async def __aenter__(self) -> Self:
        if self.needs:
            self._tasks = [asyncio.create_task(self.score_group(index)) for index in range(len(self.groups))]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await _cancel_all(self._tasks)

    async def scored_groups(self) -> AsyncIterator[ScoredGroup]:
        """Yields scored groups in task order; raises the first failure at once."""
        if not self._tasks:
            for group in self.groups:
                yield ScoredGroup(group, empty_teacher_inputs(group.rollouts))
        for task in self._tasks:
            while not task.done():
                pending = [other for other in self._tasks if not other.done()]
                await asyncio.wait(pending, return_when=FIRST_COMPLETED)
                for other in self._tasks:
                    if other.done():
                        other.result()
            yield task.result()

    async def score_group(self, index: int) -> ScoredGroup:
        """One group under every teacher: a forward pass for each. Its inputs are built in the text thread."""
        group, result = self.groups[index], None
        inputs: dict[str, list[TeacherInput]] = {"none": with_student_prompt(group.rollouts)}
        if self.needs and self.needs.needs_references:
            result = await self._get_result(group)
            inputs |= await self._read_references(index, result)
        for context in {teacher.context for teacher in self.teachers} - {*inputs}:
            inputs[context] = await self._read_siblings(group, context)
        scored_group = ScoredGroup(group, self._main_inputs(inputs) or empty_teacher_inputs(group.rollouts), result)
        for teacher in self.teachers:
            own, other_inputs = inputs[teacher.context], inputs.get(self._other_context(teacher))
            own = require_other(own, other_inputs) if other_inputs else own
            scored_group.teacher_outcomes[teacher] = await self.timer.run_in_model_thread(
                "teacher", self._score, teacher, own, other_inputs
            )
        return scored_group

    def _main_inputs(self, inputs: Mapping[str, list[TeacherInput]]) -> list[TeacherInput] | None:
        """Those under the group's own reference, else those of the first teacher that reads any text."""
        contexts = ("reference", *(teacher.context for teacher in self.teachers if teacher.context != "none"))
        return next((inputs[context] for context in contexts if context in inputs), None)

    async def _read_siblings(self, group: Group, context: str) -> list[TeacherInput]:
        """What a teacher reads whose text is of each rollout, or of no group."""
        builder = self.reference_builder
        match context:
            case "leave_one_out":
                references = await refer_without_self(group, builder)
            case "skill":
                references = refer_to_skill(group, self.policies.skill)
            case _:
                refer = refer_to_siblings if context == "sibling" else refer_to_answers
                references = await run_in_text_thread(refer, group, builder.chat)
        return await run_in_text_thread(with_references, group.rollouts, references, builder, self._window)

    async def _read_references(self, index: int, result: ReferenceResult) -> dict[str, list[TeacherInput]]:
        """What a teacher of each context reads whose text is made from references of groups."""
        group, builder = self.groups[index], self.reference_builder
        own = await run_in_text_thread(build_teacher_inputs, group, result, builder, self._window)
        contexts = {teacher.context for teacher in self.teachers}
        contexts |= {self._other_context(teacher) for teacher in self.teachers}
        others: dict[str, Reference | None] = {}
        if contexts & {"next_reference", "next_swapped"}:
            next_result = find_next_result(index, [await self._get_result(other) for other in self.groups])
            others["next_reference"] = next_result and next_result.reference
            others["next_swapped"] = next_result and next_result.swapped
        others |= {"swapped": result.swapped, "neutral": neutral_reference(result.reference)}
        inputs = {"reference": own}
        for context in contexts & {*others}:
            inputs[context] = await run_in_text_thread(
                with_other_reference, own, others[context], builder, self._window
            )
        other_inputs = inputs.get(self._other_context(OWN_REFERENCE))
        return {**inputs, "reference": require_other(own, other_inputs)} if other_inputs else inputs

    def _other_context(self, teacher: Teacher) -> str:
        """The context of the other teacher that this one is compared with; empty where that is the student."""
        assert self.needs is not None
        if self.needs.compare_with == "swapped":
            return {"reference": "swapped", "next_reference": "next_swapped"}.get(teacher.context, "")
        return "next_reference" if self.needs.compare_with == "next_reference" and teacher == OWN_REFERENCE else ""

    async def _get_result(self, group: Group) -> ReferenceResult:
        result = await self.references.get(group)
        assert result is not None, "a method that needs references gets a result for each group"
        return result

    @property
    def _window(self) -> int:
        models = [self.model, *([self.policies.outside] if self.policies.outside else [])]
        return min(get_context_window(model.config) for model in models)

    def _score(
        self, teacher: Teacher, inputs: Sequence[TeacherInput], other_inputs: Sequence[TeacherInput] | None
    ) -> list[TeacherOutcomes | None]:
        assert self.needs is not None
        k, config, student_outcomes = self.needs.k, self.forward_config, None
        if self.needs.support == "student":
            student_outcomes = score_teacher(self.model, as_student(inputs), k=k, config=config)
        with self.policies.active(teacher.model, self.model) as model:
            if student_outcomes is not None:
                return score_at_topk(model, student_outcomes, inputs, config=config)
            outcomes = score_teacher(model, inputs, k=k, config=config)
            return add_other_logprobs(model, outcomes, other_inputs, config=config) if other_inputs else outcomes


async def _cancel_all(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()  # does nothing to a task that is done
    await asyncio.gather(*tasks, return_exceptions=True)
