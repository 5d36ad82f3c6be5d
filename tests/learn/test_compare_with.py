"""A divergence between two teachers, and the test on pairs whether the policy reads its references."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.group import LastWords
from helpers.scoring import student_of, teacher_of
from helpers.tiny_policy import make_context_sensitive, model, rollout
from helpers.training_runs import SGCD, group, policy, train
from sgcd.contrast.insert import build_teacher_input_ids
from sgcd.credit.divergence import divergence_features
from sgcd.credit_records import OWN_REFERENCE, Teacher
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.teacher import TeacherOutcomes, add_other_logprobs
from sgcd.learn.scoring.teacher_inputs import TeacherInput, require_other
from sgcd.learn.training.credit_metrics import RolloutCredit, count_reading_pairs
from sgcd.learn.training.teacher_scorer import ScoredGroup
from sgcd.measure.health import run_warnings
from sgcd.measure.reading import own_above_swapped, why_not_read
from sgcd.records import Group
from sgcd.storage.credit_metrics import CreditMetrics, ReadingCounts
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

ROLLOUTS = [rollout(mask, sibling=index, prompt=2 + index) for index, mask in enumerate(("xx..xxx", "x", "....xx"))]
OWN, OTHER = np.array([7, 3, 9, 9], np.int32), np.array([4, 4, 1], np.int32)
TEMPERATURE = 0.7


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "jsd"])
def test_the_divergence_between_two_teachers_is_that_of_both_in_full(divergence: Any) -> None:
    network = make_context_sensitive(model(torch.float64, 50))
    own_rows, other_rows = ([build_teacher_input_ids(each, ids) for each in ROLLOUTS] for ids in (OWN, OTHER))
    outcomes: list[TeacherOutcomes | None] = [*teacher_of(network, ROLLOUTS, own_rows, TEMPERATURE, 30, 5)]
    outcomes[1] = None
    others = [
        TeacherInput(each, row, np.ones(len(each.response), bool))
        for each, row in zip(ROLLOUTS, other_rows, strict=True)
    ]
    both = add_other_logprobs(network, outcomes, others, config=ForwardConfig(TEMPERATURE, 12))
    found = student_of(network, ROLLOUTS, [both], TEMPERATURE, 30, divergence).features[0]
    assert found[1] is None
    for index in (0, 2):
        each, features = ROLLOUTS[index], found[index]
        other, own = (
            network(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
            .logits[0]
            .detach()[-len(each.response) - 1 : -1]
            for ids in (other_rows[index], own_rows[index])
        )
        observed = torch.from_numpy(each.response.astype(np.int64))
        expected = divergence_features(other / TEMPERATURE, own / TEMPERATURE, observed, k=5, divergence=divergence)
        assert features is not None
        for array, wanted in zip(
            (features.divergence, features.teacher_entropy, features.teacher_logprob_gap), expected, strict=True
        ):
            assert np.allclose(array[each.response_mask], wanted.numpy()[each.response_mask], atol=1e-6)
    assert found[0].divergence.max() > 0.01  # type: ignore[union-attr]


def test_a_rollout_without_the_other_teacher_has_no_features_and_the_reason_is_counted(tmp_path: Path) -> None:
    ids = np.zeros(3, np.int32)
    own = [TeacherInput(each, ids, np.ones(1, bool)) for each in ROLLOUTS]
    other = [replace(own[0]), replace(own[1], input_ids=None), replace(own[2])]
    assert [one.skip_reason for one in require_other(own, other)] == ["", "no_other", ""]
    train(
        tmp_path / "run",
        method={**SGCD, "compare_with": "swapped"},
        prepare=lambda alive: only_write(alive, 1),
        steps=1,
    )
    row = RunFolder.open(tmp_path / "run").read_metrics()[0]
    assert row.credit and row.credit.scored == 3
    assert row.credit.reasons["no_other"] == 3


class WritesOnce(LastWords):
    """A writer that has no text for the swapped traces of all but the first task."""

    def __init__(self, num_swapped: int) -> None:
        self.num_calls, self.num_swapped = 0, num_swapped

    async def write(self, traces: Any, refused: Any = ()) -> str:
        self.num_calls += 1
        text = await super().write(traces, refused)
        return text if self.num_calls % 2 or self.num_calls <= 2 * self.num_swapped else ""


def only_write(alive: Any, num_swapped: int) -> None:
    object.__setattr__(alive.reference_builder, "writer", WritesOnce(num_swapped))


def scored_group_of(
    siblings: Group, logprobs: dict[Teacher, list[float | None]]
) -> tuple[ScoredGroup, list[RolloutCredit]]:
    """A group whose rollouts have these sums of log-probabilities under each teacher, and zero under the student."""

    def scored(total: float | None) -> TeacherOutcomes | None:
        values = None if total is None else torch.tensor([[total, -np.inf, -1.0]])
        return values if values is None else TeacherOutcomes(torch.tensor([5]), torch.tensor([[5]]), values)

    results: Any = [None] * len(siblings.rollouts)
    rollout_credits = [
        RolloutCredit(each, results[index], None, np.ones(len(each.response), bool), logprobs=np.zeros(1, np.float32))
        for index, each in enumerate(siblings.rollouts)
    ]
    outcomes = {teacher: [*map(scored, values)] for teacher, values in logprobs.items()}
    return ScoredGroup(siblings, [], None, outcomes), rollout_credits


def test_pairs_are_counted_once_a_sibling_and_only_where_both_were_scored() -> None:
    siblings = group(*["x"] * 5, wins=2)  # two successes and three failures: two pairs
    own: list[float | None] = [-1.0, -3.0, -2.0, -2.0, -9.0]
    swapped: list[float | None] = [-1.5, -1.0, -2.0, -2.0, -9.0]
    scored_group, rollout_credits = scored_group_of(siblings, {OWN_REFERENCE: own, Teacher("swapped"): swapped})
    assert count_reading_pairs(scored_group, rollout_credits) == ReadingCounts(
        pairs=2, own_prefers_success=1, swapped_pairs=2, own_above_swapped=1
    )
    foreign: list[float | None] = [None, -1.0, -2.0, -2.0, -9.0]
    scored_group, rollout_credits = scored_group_of(siblings, {OWN_REFERENCE: own, Teacher("next_reference"): foreign})
    counts = count_reading_pairs(scored_group, rollout_credits)
    assert counts and (counts.next_reference_pairs, counts.next_reference_prefers_success, counts.swapped_pairs) == (
        1,
        1,
        0,
    )
    assert count_reading_pairs(*scored_group_of(siblings, {OWN_REFERENCE: [None] * 5})) is None
    assert count_reading_pairs(*scored_group_of(group("x", "x", wins=2), {OWN_REFERENCE: [0.0, 0.0]})) is None


def rows_with(*above: int, pairs: int = 4) -> list[StepMetrics]:
    counts = [ReadingCounts(pairs=pairs, swapped_pairs=pairs, own_above_swapped=one) for one in above]
    return [StepMetrics(step=1, credit=CreditMetrics(reading=counts))]


def test_a_policy_reads_unless_twenty_pairs_do_not_show_it() -> None:
    assert why_not_read([]) == why_not_read(rows_with(2, 2, 2, 2)) == ""
    assert why_not_read(rows_with(4, 3, 4, 4, 3, 4)) == ""
    assert why_not_read(rows_with(2, 2, 1, 3, 1)) == "own above swapped in .45 [.20, .73] of pairs"
    newer = [*rows_with(0, 0, 0, 0, 0), *rows_with(*[4] * 13)]
    assert why_not_read(newer) == ""  # the newest pairs are judged
    assert own_above_swapped([]).value is None


def never_reads(_: Any) -> str:
    return "own above swapped in .41 [.28, .54] of pairs"


@pytest.mark.slow
def test_where_references_are_not_read_weights_are_one_and_it_is_grpo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "grpo", method={"name": "grpo"})
    monkeypatch.setattr("sgcd.learn.training.trainer.why_not_read", never_reads)
    monkeypatch.setattr("sgcd.measure.reading.why_not_read", never_reads)
    train(tmp_path / "unread")
    train(tmp_path / "published", method={**SGCD, "require_reading": False})
    assert policy(tmp_path / "unread") == policy(tmp_path / "grpo") != policy(tmp_path / "published")
    rows = RunFolder.open(tmp_path / "unread").read_metrics()
    assert all(row.credit and row.credit.reasons == {"not_read": row.credit.rollouts} for row in rows)
    assert not any(row.invalid for row in rows)
    assert any("does not read its references (own above swapped in .41 [.28, .54] of pairs): weights are one" in text
               for text in run_warnings(rows))  # fmt: skip


@pytest.mark.slow
def test_a_run_against_the_swapped_teacher_resumes_to_the_byte(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"method": {**SGCD, "compare_with": "swapped"}, "checkpoint": {"every": 1}}
    train(tmp_path / "whole", steps=2, **changes)
    train(tmp_path / "halves", steps=1, **changes)
    train(tmp_path / "halves", steps=2, **changes)
    assert policy(tmp_path / "whole") == policy(tmp_path / "halves")


def test_the_next_task_s_pair_of_references_gives_the_shuffled_credit(tmp_path: Path) -> None:
    train(tmp_path / "run", method={**SGCD, "compare_with": "swapped"}, scoring={"reading_every": 1})
    for row in RunFolder.open(tmp_path / "run").read_metrics():
        assert row.credit and row.credit.next_reference and row.credit.reading
        assert row.credit.next_reference.rollouts == row.credit.scored
        assert row.credit.swapped and row.credit.swapped.rollouts == 0
        assert all(counts.pairs == counts.swapped_pairs == counts.next_reference_pairs for counts in row.credit.reading)
