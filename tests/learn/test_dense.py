"""What is not a matter of course (method.md section 7): weight one, counted, and never a crash."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.small import Watcher, heeding, living, recipe
from helpers.training_runs import LONG, group, referred
from sgcd.contrast.reference import ReferenceResult
from sgcd.learn.scoring.student import StudentScores
from sgcd.learn.training import gradient as room
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.group_credit import StepCredit
from sgcd.learn.training.step import GradientStep
from sgcd.learn.training.timers import StepTimer
from sgcd.measure.health import reference_warnings
from sgcd.records import Features, Group, Rollout

SGCD: dict[str, Any] = {"name": "sgcd", "k": 5, "segments": {"spike": 1.0}}


class There:
    """References that nobody has to wait for."""

    def __init__(self, told: Sequence[ReferenceResult]) -> None:
        self.told = {each.task: each for each in told}

    async def get(self, group: Group) -> ReferenceResult | None:
        return self.told.get(group.task.id)


def deserve(
    path: Path, groups: Sequence[Group], told: Sequence[ReferenceResult] | None = None, step: int = 1, **changes: Any
) -> StepCredit:
    plan = recipe(method=changes.pop("method", SGCD), **changes)
    alive = living(path / "run", plan)
    heeding(alive.policy.model)
    dense = GradientStep(plan, alive, StepTimer(alive.model_thread, Watcher().on_phase))
    count = sum(each.num_policy_tokens for siblings in groups for each in siblings.rollouts)
    gradient = GradientAccumulator(alive.policy.model, plan.surrogate, 1.0, plan.optimizer.micro_batch_tokens, count)
    there: Any = There([referred(each) for each in groups] if told is None else told)
    try:
        return asyncio.run(dense.compute_gradients(step, groups, there, gradient))
    finally:
        alive.model_thread.shutdown()


def row(done: StepCredit) -> dict[str, Any]:
    return {"reference": done.metrics["reference"], "credit": done.metrics["credit"]}


def test_empty_responses_few_tokens_and_groups_of_one_have_weight_one_and_are_counted(tmp_path: Path) -> None:
    groups = [group(LONG, "", "....", "x" * 15, LONG), group(LONG, task="alone")]
    done = deserve(tmp_path, groups)
    assert [len(each.credit.weight) for each in done.rollout_credits] == [42, 0, 4, 15, 42, 42]
    assert done.metrics["credit"]["reasons"] == {"few_tokens": 3}
    for each in done.rollout_credits[1:4]:
        assert (each.credit.weight == 1).all()
        assert each.no_segment_reason == "few_tokens"
    assert done.rollout_credits[5].credit.advantage == 0
    assert (done.rollout_credits[5].credit.token_advantage == 0).all()
    assert done.rollout_credits[0].credit.advantage > 0 > done.rollout_credits[4].credit.advantage


def test_all_that_was_kept_may_be_empty(tmp_path: Path) -> None:
    done = deserve(tmp_path, [group("", "..")])
    assert [each.credit.weight.tolist() for each in done.rollout_credits] == [[], [1.0, 1.0]]
    assert done.metrics["credit"]["creditable"] == 0
    assert done.metrics["credit"]["divergence"] == dict.fromkeys(["mean", "median", "p90", "p99", "max"])
    assert done.metrics["credit"]["weight"]["mean"] is None


def test_a_group_without_a_reference_stands_beside_one_that_has_it(tmp_path: Path) -> None:
    groups = [group(LONG, LONG), group(LONG, LONG, task="u")]
    done = deserve(tmp_path, groups, [referred(groups[0]), referred(groups[1], "")])
    assert [each.features is not None for each in done.rollout_credits] == [True, True, False, False]
    assert done.metrics["credit"]["reasons"] == {"no_reference": 2}
    assert done.metrics["reference"]["causes"] == {"writer gave nothing": 1}
    assert reference_warnings(row(done)) == ["1 of 2 groups without a reference: writer gave nothing"]
    assert all((each.credit.weight == 1).all() for each in done.rollout_credits[2:])


def test_literals_keep_weight_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgcd.learn.scoring.teacher_inputs.creditable_mask", lambda *_: np.zeros(42, bool))
    done = deserve(tmp_path, [group(LONG, LONG)])
    assert done.metrics["credit"]["reasons"] == {"few_tokens": 2}
    assert done.metrics["credit"]["tokens"] == 80
    assert done.metrics["credit"]["creditable"] == 0
    assert not done.rollout_credits[0].record.creditable.any()  # type: ignore[union-attr]


def planted(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Features of the first rollout, changed on their way out of scoring."""
    honest = room.score_student

    def asked(model: Any, rollouts: Sequence[Rollout], *given: Any) -> tuple[Any, Any, StudentScores]:
        logp, entropy, marks = honest(model, rollouts, *given)
        for features in marks.features:
            first = features[0]
            assert first is not None
            features[0] = Features(
                *(change(array.copy()) for array in (first.divergence, first.entropy, first.teacher_logprob_gap))
            )
        return logp, entropy, marks

    monkeypatch.setattr(room, "score_student", asked)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_number_that_is_none_costs_a_token_and_many_the_rollout(
    bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(numbers: Any, count: int) -> Any:
        numbers[:count] = bad
        return numbers

    with monkeypatch.context() as patched:
        planted(patched, lambda numbers: spoil(numbers, 1))
        done = deserve(tmp_path / "one", [group(LONG, LONG)])
    assert (done.metrics["credit"]["nonfinite"], done.metrics["credit"]["reasons"]) == (1, {})
    assert done.rollout_credits[0].credit.weight[0] == 1
    assert reference_warnings(row(done)) == ["1 token with features that are not finite"]
    with monkeypatch.context() as patched:
        planted(patched, lambda numbers: spoil(numbers, 9))
        done = deserve(tmp_path / "nine", [group(LONG, LONG)])
    assert done.metrics["credit"]["reasons"] == {"nonfinite": 1}
    assert (done.rollout_credits[0].credit.weight == 1).all()
    assert reference_warnings(row(done)) == [
        "9 tokens with features that are not finite, 1 rollout without credit for it"
    ]
    assert np.isfinite(list(done.metrics["credit"]["divergence"].values())).all()


def test_divergences_that_are_all_equal_are_no_spikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda numbers: np.full_like(numbers, 0.7))
    done = deserve(tmp_path, [group(LONG, LONG)])
    assert done.rollout_credits[0].no_segment_reason == "flat"
    assert (done.rollout_credits[0].credit.weight == 1).all()


def test_a_neighbour_is_the_next_group_that_has_a_reference(tmp_path: Path) -> None:
    groups = [group(LONG, LONG, task=name) for name in "abc"]
    told = [referred(groups[0], "cabin"), referred(groups[1], ""), referred(groups[2], "seat seat seat")]
    done = deserve(tmp_path, groups, told, scoring={"shuffled_every": 1})
    assert [each.shuffled_result is not None for each in done.rollout_credits] == [True, True, False, False, True, True]
    assert done.metrics["credit"]["shuffled"]["rollouts"] == 4
    alone = deserve(tmp_path / "alone", groups[:1], told[:1], scoring={"shuffled_every": 1})
    assert alone.metrics["credit"]["shuffled"]["rollouts"] == 0
    assert alone.metrics["credit"]["shuffled"]["overlap"] is None
    same = [referred(each, "cabin seat") for each in groups]
    twins = deserve(tmp_path / "twins", groups, same, scoring={"shuffled_every": 1})
    found = twins.metrics["credit"]["shuffled"]
    assert found["own"] == found["other"] == found["both"] > 0
    assert found["overlap"] == 1


def test_the_method_s_threshold_is_chosen_on_the_first_batch(tmp_path: Path) -> None:
    done = deserve(tmp_path, [group(LONG, LONG)], method={**SGCD, "calibrate": True})
    assert done.metrics["credit"]["method"]["calibration"]["spike"] in (3.0, 4.0, 5.0, 6.0)


def test_nothing_is_said_of_credit_where_no_reference_is_needed(tmp_path: Path) -> None:
    done = deserve(tmp_path, [group(LONG, LONG)], (), method={"name": "grpo"})
    assert done.metrics == {}
    assert all((each.credit.weight == 1).all() and each.record.features is None for each in done.rollout_credits)
