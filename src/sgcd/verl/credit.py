"""What the driver adds to verl's step: what teachers read, then weights from what the workers measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit_records import Features, Teacher
from sgcd.learn.scoring.teacher import TeacherOutcomes
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.learn.training.credit_metrics import RolloutCredit
from sgcd.learn.training.teacher_scorer import ScoredGroup, TeacherScorer
from sgcd.records import Floats
from sgcd.verl.readers import FEATURES, TEACHER_PROMPT, feature_name

RowKey = tuple[str, int]
"""A row by its task and its sibling."""


@dataclass(frozen=True, slots=True)
class PreparedGroup:
    """A group with what each teacher reads of it."""

    scored: ScoredGroup
    inputs: dict[Teacher, list[TeacherInput]]


class TeacherInputBuilder(TeacherScorer):
    """Builds what teachers read, and leaves the reading to verl's workers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inputs: dict[str, dict[Teacher, list[TeacherInput]]] = {}

    def _score(
        self, teacher: Teacher, inputs: Sequence[TeacherInput], other_inputs: Sequence[TeacherInput] | None
    ) -> list[TeacherOutcomes | None]:
        self.inputs.setdefault(inputs[0].rollout.task, {})[teacher] = list(inputs)
        return [None] * len(inputs)


async def prepare_groups(builder: TeacherInputBuilder) -> list[PreparedGroup]:
    """All groups of a step, once their references are written."""
    async with builder:
        return [
            PreparedGroup(scored, builder.inputs.get(scored.group.task.id, {}))
            async for scored in builder.scored_groups()
        ]


def teacher_prompts(groups: Sequence[PreparedGroup], teachers: Sequence[Teacher]) -> dict[RowKey, list[Any]]:
    """The ids that each teacher reads before each response; None where it has no reference or no room."""
    return {
        (entries[0].rollout.task, entries[0].rollout.sibling): [
            None if one.input_ids is None else one.input_ids[: len(one.input_ids) - len(one.rollout.response)]
            for one in entries
        ]
        for group in groups
        for entries in zip(*(group.inputs[teacher] for teacher in teachers), strict=True)
    }


def build_prompt_fields(rows: Sequence[Sequence[Any] | None], prompts: Any, num_teachers: int) -> dict[str, Any]:
    """Fields of a batch, in the order of its rows: a row without a teacher's prompt is read after its own, for the
    ranks must make equally many passes; what comes of it is not used."""
    own = list(prompts.unbind())
    fields = {
        f"{TEACHER_PROMPT}{number}": [
            own[index] if row is None or row[number] is None else torch.from_numpy(row[number]).to(own[index])
            for index, row in enumerate(rows)
        ]
        for number in range(num_teachers)
    }
    return {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in fields.items()}


@dataclass(frozen=True, slots=True)
class RowScores:
    """What the workers measured on one row; each array has one entry for each token of the response."""

    logprobs: Floats
    entropy: Floats
    features: list[Features]
    """By teacher, in the method's order."""


def read_row_scores(data: Any, mask: Any, num_teachers: int) -> list[RowScores]:
    """From the fields of a batch, in the order of its rows; zero where the policy wrote nothing."""

    def column(name: str) -> list[Floats]:
        return [
            (values.float() * flags).numpy() for values, flags in zip(data[name].unbind(), mask.unbind(), strict=True)
        ]

    logprobs, entropy = column("old_log_probs"), column("entropy")
    teachers = [[column(feature_name(feature, number)) for feature in FEATURES] for number in range(num_teachers)]
    return [
        RowScores(
            logprobs[row],
            entropy[row],
            [Features(*(values[row] for values in features), student_entropy=entropy[row]) for features in teachers],
        )
        for row in range(len(logprobs))
    ]


def credit_groups(
    method: Method,
    groups: Sequence[PreparedGroup],
    *,
    scores: Mapping[RowKey, RowScores],
    advantages: Mapping[RowKey, float],
    step: int,
) -> list[RolloutCredit]:
    """The credit of every rollout of mixed groups, from verl's advantages and the workers' numbers."""
    inputs = [_credit_inputs(method, group, scores, advantages, step=step) for group in groups]
    if method.needs_whole_step:
        method.observe_step([entry for entries in inputs for entry in entries])
    needs = method.needs
    return [
        RolloutCredit(
            entry.rollout,
            method.assign_credit(entry),
            entry.features.get(needs.teachers[0]) if needs else None,
            teacher_input.outside_literals,
            teacher_input.skip_reason,
            logprobs=entry.logprobs,
        )
        for group, entries in zip(groups, inputs, strict=True)
        for entry, teacher_input in zip(entries, group.scored.inputs, strict=True)
    ]


def _credit_inputs(
    method: Method,
    prepared: PreparedGroup,
    scores: Mapping[RowKey, RowScores],
    advantages: Mapping[RowKey, float],
    *,
    step: int,
) -> list[CreditInputs]:
    group = prepared.scored.group
    keys = [(rollout.task, rollout.sibling) for rollout in group.rollouts]
    group_advantages = [advantages[key] for key in keys]
    teachers = method.needs.teachers if method.needs else ()
    return [
        CreditInputs(
            rollout,
            group_advantages[index],
            {
                teacher: scores[key].features[number]
                for number, teacher in enumerate(teachers)
                if scores[key].features and prepared.inputs[teacher][index].input_ids is not None
            },
            prepared.scored.inputs[index].outside_literals,
            group,
            group_advantages=group_advantages,
            logprobs=scores[key].logprobs,
            entropy=scores[key].entropy,
            step=step,
        )
        for index, (key, rollout) in enumerate(zip(keys, group.rollouts, strict=True))
    ]


def config_only(config: Any) -> Any:
    """Stands for a model where only its configuration is read: the weights are with the workers."""
    return SimpleNamespace(config=config)
