"""The teacher beside the student: the same tokens, one forward pass more, and exactly nothing where nothing differs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.scoring import logprobs_of, student_of, teacher_of
from helpers.tiny_policy import make_context_sensitive, model, rollout
from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.credit.divergence import divergence_features
from sgcd.credit_records import Features
from sgcd.errors import RecordError
from sgcd.learn.policy.head import get_backbone
from sgcd.learn.scoring.forward import split_by_length
from sgcd.learn.scoring.student import StudentScores
from sgcd.learn.scoring.teacher import TeacherOutcomes
from sgcd.records import Rollout, TokenIds

MASKS = ("xx..xxx", "x", "....xx", "xxx.x.x.x", "..", "", "xxxxx")
ROLLOUTS = [rollout(mask, sibling=index, prompt=2 + index % 3) for index, mask in enumerate(MASKS)]
REFERENCE = np.array([7, 3, 9, 9], np.int32)
ROWS = [build_teacher_input_ids(each, REFERENCE) for each in ROLLOUTS]
BARE = [np.concatenate([each.prompt, each.response]) for each in ROLLOUTS]
TEMPERATURE = 0.7


def scored(
    policy: Any, rollouts: Sequence[Rollout], rows: Sequence[TokenIds | None], k: int = 5, tokens: int = 30
) -> tuple[StudentScores, list[TeacherOutcomes]]:
    taught = [(each, row) for each, row in zip(rollouts, rows, strict=True) if row is not None]
    lessons = teacher_of(policy, [each for each, _ in taught], [row for _, row in taught], TEMPERATURE, tokens, k)
    told = iter(lessons)
    beside = [None if row is None else next(told) for row in rows]
    return student_of(policy, rollouts, [beside], TEMPERATURE, tokens, "reverse_kl"), lessons


def by_hand(policy: Any, each: Rollout, row: TokenIds, k: int) -> Features:
    """Both contexts in full, one rollout at a time, straight from logits."""
    student, teacher = (
        policy(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0, len(ids) - len(each.response) - 1 : -1]
        for ids in (np.concatenate([each.prompt, each.response]), row)
    )
    observed = torch.from_numpy(each.response.astype(np.int64))
    numbers = divergence_features(student.detach() / TEMPERATURE, teacher.detach() / TEMPERATURE, observed, k=k)
    numbers = (*numbers, torch.special.entr(torch.softmax(student.detach() / TEMPERATURE, -1)).sum(-1))
    return Features(*(np.where(each.response_mask, number.numpy(), 0).astype(np.float32) for number in numbers))


def test_features_are_those_of_both_contexts_in_full() -> None:
    policy = make_context_sensitive(model(torch.float64, 50))
    for k in (5, 50, 80):
        marks, _ = scored(policy, ROLLOUTS, ROWS, k)
        for each, row, found in zip(ROLLOUTS, ROWS, marks.features[0], strict=True):
            assert found is not None
            expected = by_hand(policy, each, row, k)
            for name in ("divergence", "teacher_entropy", "teacher_logprob_gap", "student_entropy"):
                assert getattr(found, name).dtype == np.float32
                assert np.allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
        assert max(found.divergence.max(initial=0) for found in marks.features[0] if found) > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_without_a_reference_the_divergence_is_exactly_zero(dtype: torch.dtype) -> None:
    policy = model(dtype, 50)
    marks, _ = scored(policy, ROLLOUTS, BARE)
    for each, found in zip(ROLLOUTS, marks.features[0], strict=True):
        assert found is not None
        assert found.divergence.tolist() == found.teacher_logprob_gap.tolist() == [0.0] * len(each.response)
        assert (found.teacher_entropy[each.response_mask] > 0).all()


def test_one_changed_id_is_refused() -> None:
    policy = model(size=50)
    each, row = ROLLOUTS[0], ROWS[0]
    for place in (0, len(row) - 1, len(row) - 3):
        changed = row.copy()
        changed[place] += 1
        with pytest.raises(RecordError, match=f"token {place} of the teacher's row must be {row[place]}"):
            teacher_of(policy, [each], [changed], TEMPERATURE, 30, 5)
    with pytest.raises(RecordError, match=r"teacher's row must have 9 tokens, .* got 8"):
        teacher_of(policy, [each], [BARE[0][1:]], TEMPERATURE, 30, 5)


def test_a_lesson_for_another_rollout_is_refused() -> None:
    policy = model(size=50)
    other = replace(ROLLOUTS[0], response=ROLLOUTS[0].response[::-1].copy())
    lessons = teacher_of(policy, [other], [build_teacher_input_ids(other, REFERENCE)], TEMPERATURE, 30, 5)
    with pytest.raises(RecordError, match="teacher and student must read the same ids"):
        student_of(policy, ROLLOUTS[:1], [lessons], TEMPERATURE, 30, "reverse_kl")


def test_rollouts_without_a_reference_have_no_features_and_change_nothing_for_others() -> None:
    policy = model(torch.float64, 50)
    some: list[TokenIds | None] = [None if index in (0, 3) else row for index, row in enumerate(ROWS)]
    all_marks, _ = scored(policy, ROLLOUTS, ROWS)
    marks, _ = scored(policy, ROLLOUTS, some)
    none, _ = scored(policy, ROLLOUTS, [None] * len(ROLLOUTS))
    assert none.features == [[None] * len(ROLLOUTS)]
    for index, (found, full) in enumerate(zip(marks.features[0], all_marks.features[0], strict=True)):
        assert (found is None) == (index in (0, 3))
        if found and full:
            assert np.allclose(found.divergence, full.divergence, atol=1e-6)


def test_log_probabilities_are_those_of_grpo_to_the_last_bit() -> None:
    policy = model(size=50)
    plain = logprobs_of(policy, ROLLOUTS, TEMPERATURE, 30)
    marks, _ = scored(policy, ROLLOUTS, ROWS)
    assert [each.tobytes() for each in marks.logprobs] == [each.tobytes() for each in plain]


def test_two_teachers_share_the_student_s_pass() -> None:
    policy = model(torch.float64, 50)
    one = teacher_of(policy, ROLLOUTS, ROWS, TEMPERATURE, 30, 5)
    other = teacher_of(
        policy, ROLLOUTS, [build_teacher_input_ids(each, REFERENCE[:2]) for each in ROLLOUTS], TEMPERATURE, 30, 5
    )
    both = student_of(policy, ROLLOUTS, [one, other], TEMPERATURE, 30, "jsd")
    for index, lessons in enumerate((one, other)):
        alone = student_of(policy, ROLLOUTS, [lessons], TEMPERATURE, 30, "jsd")
        for here, there in zip(both.features[index], alone.features[0], strict=True):
            assert here and there and here.divergence.tolist() == there.divergence.tolist()


class Counting:
    """How often a model was called, with how many rows, and whether a gradient could have passed."""

    def __init__(self, policy: Any) -> None:
        self.rows: list[int] = []
        self.gradients: list[bool] = []
        get_backbone(policy).register_forward_pre_hook(self._called, with_kwargs=True)

    def _called(self, _: Any, given: Any, named: Any) -> None:
        self.rows.append(len(named["input_ids"]))
        self.gradients.append(torch.is_grad_enabled())


def test_the_teacher_costs_one_forward_pass_and_no_gradient_passes() -> None:
    policy = model(size=50)
    counting = Counting(policy)
    logprobs_of(policy, ROLLOUTS, TEMPERATURE, 1000)
    assert counting.rows == [len(ROLLOUTS)]
    scored(policy, ROLLOUTS, ROWS, tokens=1000)
    assert counting.rows == [len(ROLLOUTS)] * 3  # one of the teacher, one of the student
    assert not any(counting.gradients)


def test_teacher_rows_keep_to_the_budget() -> None:
    policy = model(size=50)
    counting = Counting(policy)
    teacher_of(policy, ROLLOUTS, ROWS, TEMPERATURE, 24, 5)
    shown = [replace(each, prompt=np.zeros(len(each.prompt) + 4, np.int32)) for each in ROLLOUTS]
    assert counting.rows == [len(part) for part in split_by_length(shown, 24)]
    assert len(counting.rows) > 2


def test_blocks_leave_the_features_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = model(torch.float64, 50)
    whole, _ = scored(policy, ROLLOUTS, [*ROWS[:2], None, *ROWS[3:]])
    monkeypatch.setattr("sgcd.learn.scoring.logits.chunks._CPU_BLOCK_LOGITS", 100)  # two rows at a time
    parts, _ = scored(policy, ROLLOUTS, [*ROWS[:2], None, *ROWS[3:]])
    for here, there in zip(whole.features[0], parts.features[0], strict=True):
        assert (here is None) == (there is None)
        if here and there:
            assert np.allclose(here.divergence, there.divergence, atol=1e-7)
            assert np.allclose(here.teacher_logprob_gap, there.teacher_logprob_gap, atol=1e-7)
