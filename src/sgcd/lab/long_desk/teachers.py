"""Reads the long desk's rollouts under references: the own one, the one with outcomes exchanged, another group's."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.insert import build_teacher_input_ids, encode_reference
from sgcd.contrast.reference import ReferenceResult, build_reference
from sgcd.contrast.settings import ReferenceSettings
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.settings import SgcdSettings
from sgcd.credit_records import Features
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher import score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.records import Group, Reference

DeskFeatures = Mapping[str, Sequence[Features | None]]
"""By reference (own, swapped, shuffled), one entry for each rollout of a group; None where there is no reference."""


def score_desk_references(model: Any, chat: Chat, groups: Sequence[Group]) -> list[DeskFeatures]:
    """What a teacher says of each group under three references by the built-in writer."""
    results = asyncio.run(_write_references(chat, groups))
    features: list[DeskFeatures] = []
    for index, (group, result) in enumerate(zip(groups, results, strict=True)):
        references = {
            "own": result.reference,
            "swapped": result.swapped,
            "shuffled": results[(index + 1) % len(results)].reference,
        }
        features.append(_score_group(model, chat, group, references))
    return features


async def _write_references(chat: Chat, groups: Sequence[Group]) -> list[ReferenceResult]:
    budget = ReferenceSettings().budget
    return [await build_reference(group, chat, BuiltInWriter(), budget=budget, with_swapped=True) for group in groups]


def _score_group(model: Any, chat: Chat, group: Group, references: Mapping[str, Reference | None]) -> DeskFeatures:
    config, k = ForwardConfig(), SgcdSettings(name="sgcd").k
    topk_by_reference = [
        score_teacher(
            model,
            [
                TeacherInput(
                    rollout,
                    build_teacher_input_ids(rollout, encode_reference(chat, reference.text)) if reference else None,
                    np.ones(len(rollout.response), np.bool_),
                )
                for rollout in group.rollouts
            ],
            k=k,
            config=config,
        )
        for reference in references.values()
    ]
    scores = score_student_no_grad(model, group.rollouts, topk_by_reference, divergence="reverse_kl", config=config)
    return dict(zip(references, scores.features, strict=True))
