"""Builds what the teacher reads for each rollout, and which of its tokens are no masked literals."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgcd.contrast.insert import build_teacher_input_ids, write_neutral_text
from sgcd.contrast.reference import ReferenceBuilder, ReferenceResult
from sgcd.records import Flags, Group, Reference, Rollout, TokenIds
from sgcd.storage.metrics import ReferenceMetrics


@dataclass(frozen=True, slots=True)
class TeacherInput:
    """What a teacher reads of one rollout."""

    rollout: Rollout
    input_ids: TokenIds | None
    """prefix + reference + suffix + response; None where the reference is missing or has no room. A teacher that reads
    no reference gets the student's own ids."""
    outside_literals: Flags
    """False on masked literals: they keep weight one."""
    dropped_lines: int = 0
    """Lines that the reference lost to the model's window."""
    num_reference_tokens: int = 0
    """Of the reference in `input_ids`."""
    skip_reason: str = ""
    """Why a reference is missing: no_reference, exceeds_window, or no_other where the teacher is compared with
    another one that has none; empty where none was asked for."""


def build_teacher_inputs(
    group: Group, reference_result: ReferenceResult, reference_builder: ReferenceBuilder, window: int
) -> list[TeacherInput]:
    """Every rollout of a group, in order."""
    masks = reference_builder.tokens_outside_literals(group, reference_result)
    return [
        build_teacher_input(rollout, reference_result.reference, mask, reference_builder, window)
        for rollout, mask in zip(group.rollouts, masks, strict=True)
    ]


def empty_teacher_inputs(rollouts: Sequence[Rollout]) -> list[TeacherInput]:
    """For a method without teachers."""
    return [TeacherInput(rollout, None, np.ones(len(rollout.response), np.bool_)) for rollout in rollouts]


def with_student_prompt(rollouts: Sequence[Rollout]) -> list[TeacherInput]:
    """For a teacher that reads the rollouts as the student does."""
    return [
        TeacherInput(
            rollout, np.concatenate([rollout.prompt, rollout.response]), np.ones(len(rollout.response), np.bool_)
        )
        for rollout in rollouts
    ]


def as_student(teacher_inputs: Sequence[TeacherInput]) -> list[TeacherInput]:
    """The rollouts that a teacher reads, as the student reads them."""
    rollouts = [teacher_input.rollout for teacher_input in teacher_inputs]
    return [
        student if own.input_ids is not None else own
        for own, student in zip(teacher_inputs, with_student_prompt(rollouts), strict=True)
    ]


def build_teacher_input(
    rollout: Rollout,
    reference: Reference | None,
    outside_literals: Flags,
    reference_builder: ReferenceBuilder,
    window: int,
) -> TeacherInput:
    """The rollout after a prompt with the reference, as far as the window has room; the response is never cut."""
    if reference is None:
        return TeacherInput(rollout, None, outside_literals, skip_reason="no_reference")
    fitted = reference_builder.fit_to_window(reference, window - len(rollout.prompt) - len(rollout.response))
    if fitted is None:
        return TeacherInput(rollout, None, outside_literals, skip_reason="exceeds_window")
    input_ids = build_teacher_input_ids(rollout, fitted.ids)
    return TeacherInput(rollout, input_ids, outside_literals, fitted.dropped_lines, len(fitted.ids))


def find_next_result(index: int, reference_results: Sequence[ReferenceResult]) -> ReferenceResult | None:
    """The result of the next group that has a reference, if it is another group."""
    with_reference = [position for position, result in enumerate(reference_results) if result.reference]
    candidates = sorted(with_reference, key=lambda position: (position <= index, position))
    return reference_results[candidates[0]] if candidates and candidates[0] != index else None


def neutral_reference(reference: Reference | None) -> Reference | None:
    """A text of the same length that says nothing."""
    return reference and replace(reference, text=write_neutral_text(reference.text), writer="neutral", literals=())


def require_other(inputs: Sequence[TeacherInput], others: Sequence[TeacherInput]) -> list[TeacherInput]:
    """The inputs of a teacher that is compared with another one: none where the other has none."""
    return [
        replace(own, input_ids=None, skip_reason=own.skip_reason or "no_other") if other.input_ids is None else own
        for own, other in zip(inputs, others, strict=True)
    ]


def with_other_reference(
    teacher_inputs: Sequence[TeacherInput],
    reference: Reference | None,
    reference_builder: ReferenceBuilder,
    window: int,
) -> list[TeacherInput]:
    """The same rollouts with another group's reference, where they had a row of their own."""
    return [
        build_teacher_input(
            teacher_input.rollout,
            reference if teacher_input.input_ids is not None else None,
            teacher_input.outside_literals,
            reference_builder,
            window,
        )
        for teacher_input in teacher_inputs
    ]


def with_references(
    rollouts: Sequence[Rollout],
    references: Sequence[Reference | None],
    reference_builder: ReferenceBuilder,
    window: int,
) -> list[TeacherInput]:
    """Each rollout with a reference of its own; no token is masked."""
    return [
        build_teacher_input(rollout, reference, np.ones(len(rollout.response), np.bool_), reference_builder, window)
        for rollout, reference in zip(rollouts, references, strict=True)
    ]


def build_reference_metrics(
    reference_results: Sequence[ReferenceResult], teacher_inputs: Sequence[TeacherInput]
) -> ReferenceMetrics:
    """How many groups got a reference, why others did not, and how it went in."""
    with_input = [teacher_input for teacher_input in teacher_inputs if teacher_input.input_ids is not None]
    causes = Counter(result.cause.partition(":")[0] for result in reference_results if result.cause)
    texts = Counter(result.reference.text for result in reference_results if result.reference)
    return ReferenceMetrics(
        groups=len(reference_results),
        written=sum(result.reference is not None for result in reference_results),
        causes=dict(causes.most_common()),
        by_reward=sum(result.reference is not None and result.contrast == "reward" for result in reference_results),
        equal=sum(count for count in texts.values() if count > 1),
        refused=dict(
            Counter(
                refusal.partition(":")[0] for result in reference_results for refusal in result.refused
            ).most_common()
        ),
        example=next((result.cause for result in reference_results if result.cause), ""),
        replaced=sum(result.num_replaced for result in reference_results),
        rollouts=len(with_input),
        shortened=sum(teacher_input.dropped_lines > 0 for teacher_input in with_input),
        exceeds_window=sum(teacher_input.skip_reason == "exceeds_window" for teacher_input in teacher_inputs),
        tokens=sum(teacher_input.num_reference_tokens for teacher_input in with_input),
    )
