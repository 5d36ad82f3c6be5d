"""Scoring calls with their settings by position, as tests of arithmetic like them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgcd.credit.methods import CreditInputs, Method
from sgcd.credit_records import OWN_REFERENCE, Features, Signal
from sgcd.learn.scoring.forward import ForwardConfig, score_logprobs
from sgcd.learn.scoring.student import OutcomesByTeacher, StudentScores, score_student_no_grad
from sgcd.learn.scoring.teacher import TeacherOutcomes, score_teacher
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.records import Flags, Floats, Rollout, TokenIds
from sgcd.settings import Divergence


def logprobs_of(
    model: Any, rollouts: Sequence[Rollout], temperature: float, tokens: int, logits_bytes: int = 2**28
) -> list[Floats]:
    return score_logprobs(model, rollouts, ForwardConfig(temperature, tokens, logits_bytes))


def teacher_of(
    model: Any, rollouts: Sequence[Rollout], rows: Sequence[TokenIds], temperature: float, tokens: int, k: int
) -> list[TeacherOutcomes]:
    inputs = [
        TeacherInput(rollout, row, np.ones(len(rollout.response), bool))
        for rollout, row in zip(rollouts, rows, strict=True)
    ]
    scores = score_teacher(model, inputs, k=k, config=ForwardConfig(temperature, tokens))
    return [score for score in scores if score is not None]


def student_of(
    model: Any,
    rollouts: Sequence[Rollout],
    topk: OutcomesByTeacher,
    temperature: float,
    tokens: int,
    divergence: Divergence,
) -> StudentScores:
    config = ForwardConfig(temperature, tokens)
    return score_student_no_grad(model, rollouts, topk, divergence=divergence, config=config)


def credit_of(
    method: Method, rollout: Rollout, advantage: float, features: Features | None, creditable: Flags | None = None
) -> Signal:
    by_teacher = {} if features is None else {OWN_REFERENCE: features}
    return method.assign_credit(CreditInputs(rollout, advantage, by_teacher, creditable))
