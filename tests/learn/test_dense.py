"""What is not a matter of course (method.md section 7): weight one, counted, and never a crash."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny_policy import Watcher, build_context, make_context_sensitive, recipe
from helpers.training_runs import LONG, group, referred
from sgcd.contrast.reference import ReferenceResult
from sgcd.credit.methods import Method
from sgcd.credit_records import Features
from sgcd.learn.scoring.student import StudentForward
from sgcd.learn.training import gradient as room
from sgcd.learn.training.context import training_forward_config
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.step import StepCredit, credit_and_accumulate
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.timers import StepTimer
from sgcd.measure.health import reference_warnings
from sgcd.records import Group, Rollout
from sgcd.storage.credit_metrics import CreditMetrics, CreditOverlap, DivergenceMetrics
from sgcd.storage.metrics import StepMetrics

SGCD: dict[str, Any] = {"name": "sgcd", "k": 5, "segments": {"spike": 1.0}}


class There:
    """References that nobody has to wait for."""

    def __init__(self, told: Sequence[ReferenceResult]) -> None:
        self.told = {each.task: each for each in told}

    async def get(self, group: Group) -> ReferenceResult | None:
        return self.told.get(group.task.id)


class Done:
    """A step's credit, and its metrics."""

    def __init__(self, credit: StepCredit, method: Method) -> None:
        self.rollout_credits = credit.rollout_credits
        self.reference_metrics = credit.reference_metrics(method)
        self.credit_metrics = credit.credit_metrics(method)


def deserve(
    path: Path, groups: Sequence[Group], told: Sequence[ReferenceResult] | None = None, step: int = 1, **changes: Any
) -> Done:
    plan = recipe(method=changes.pop("method", SGCD), **changes)
    alive = build_context(path / "run", plan)
    make_context_sensitive(alive.policy.model)
    timer = StepTimer(alive.model_thread, Watcher().on_phase)
    size = BatchSize.of(each for siblings in groups for each in siblings.rollouts)
    gradient = GradientAccumulator(
        model=alive.policy.model, surrogate=plan.surrogate, size=size, config=training_forward_config(plan)
    )
    there: Any = There([referred(each) for each in groups] if told is None else told)
    try:
        done = asyncio.run(
            credit_and_accumulate(
                step,
                groups,
                references=there,
                accumulator=gradient,
                config=plan,
                method=alive.method,
                reference_builder=alive.reference_builder,
                timer=timer,
            )
        )
        return Done(done, alive.method)
    finally:
        alive.model_thread.shutdown()


def credit(done: Done) -> CreditMetrics:
    assert done.credit_metrics
    return done.credit_metrics


def shuffled(done: Done) -> CreditOverlap:
    overlap = credit(done).next_reference
    assert overlap
    return overlap


def row(done: Done) -> StepMetrics:
    return StepMetrics(step=1, reference=done.reference_metrics, credit=done.credit_metrics)


def test_empty_responses_few_tokens_and_groups_of_one_have_weight_one_and_are_counted(tmp_path: Path) -> None:
    groups = [group(LONG, "", "....", "x" * 15, LONG), group(LONG, task="alone")]
    done = deserve(tmp_path, groups)
    assert [len(each.credit.weight) for each in done.rollout_credits] == [42, 0, 4, 15, 42, 42]
    assert credit(done).reasons == {"few_tokens": 3}
    for each in done.rollout_credits[1:4]:
        assert (each.credit.weight == 1).all()
        assert each.no_segment_reason == "few_tokens"
    assert done.rollout_credits[5].credit.advantage == 0
    assert (done.rollout_credits[5].credit.token_advantage == 0).all()
    assert done.rollout_credits[0].credit.advantage > 0 > done.rollout_credits[4].credit.advantage


def test_all_that_was_kept_may_be_empty(tmp_path: Path) -> None:
    done = deserve(tmp_path, [group("", "..")])
    assert [each.credit.weight.tolist() for each in done.rollout_credits] == [[], [1.0, 1.0]]
    assert credit(done).creditable == 0
    assert credit(done).divergence == DivergenceMetrics()
    assert credit(done).weight.mean is None


def test_a_group_without_a_reference_stands_beside_one_that_has_it(tmp_path: Path) -> None:
    groups = [group(LONG, LONG), group(LONG, LONG, task="u")]
    done = deserve(tmp_path, groups, [referred(groups[0]), referred(groups[1], "")])
    assert [each.features is not None for each in done.rollout_credits] == [True, True, False, False]
    assert credit(done).reasons == {"no_reference": 2}
    assert done.reference_metrics
    assert done.reference_metrics.causes == {"writer gave nothing": 1}
    assert reference_warnings(row(done)) == ["1 of 2 groups without a reference: writer gave nothing"]
    assert all((each.credit.weight == 1).all() for each in done.rollout_credits[2:])


def test_sums_that_tell_noise_from_credit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = deserve(tmp_path, [group(LONG, LONG)])
    noise = credit(done).noise
    entries = [(each, each.features, each.creditable_tokens) for each in done.rollout_credits]
    tokens = [(features.divergence[mask], features.undecided_mask()[mask]) for _, features, mask in entries if features]
    assert noise and 0 < noise.divergence == pytest.approx(sum(float(d.sum()) for d, _ in tokens))
    assert noise.sure_divergence == pytest.approx(sum(float(d[~undecided].sum()) for d, undecided in tokens))
    extra = [each.credit.weight - 1 for each, _, _ in entries]
    assert noise.extra_weight == pytest.approx(sum(float(one.sum()) for one in extra))
    assert noise.credited_rollouts == sum(one.any() for one in extra)
    assert noise.single_token_rollouts == sum((one > 0).sum() == 1 for one in extra)
    ends = [turn.stop - 1 for turn in entries[0][0].rollout.turns]
    assert noise.end_tokens == 2 * len(ends)
    assert noise.end_extra_weight == pytest.approx(sum(float(one[ends].sum()) for one in extra))
    monkeypatch.setattr("sgcd.learn.training.credit_metrics.UNDECIDED_ENTROPY", 99.0)
    all_sure = credit(deserve(tmp_path / "sure", [group(LONG, LONG)])).noise
    assert all_sure and all_sure.sure_divergence == all_sure.divergence > 0


def test_literals_keep_weight_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgcd.contrast.reference.tokens_outside_literals", lambda *_: np.zeros(42, bool))
    done = deserve(tmp_path, [group(LONG, LONG)])
    assert credit(done).reasons == {"few_tokens": 2}
    assert credit(done).tokens == 80
    assert credit(done).creditable == 0
    assert not done.rollout_credits[0].record.outside_literals.any()  # type: ignore[union-attr]


def planted(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Features of the first rollout, changed on their way out of scoring."""
    honest = room.score_student

    def asked(model: Any, rollouts: Sequence[Rollout], *given: Any, **named: Any) -> StudentForward:
        forward = honest(model, rollouts, *given, **named)
        for features in forward.scores.features:
            first = features[0]
            if first is None:  # no other task's reference, in a step with a sample
                continue
            features[0] = Features(
                *(
                    change(array.copy())
                    for array in (first.divergence, first.teacher_entropy, first.teacher_logprob_gap)
                )
            )
        return forward

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
    assert (credit(done).nonfinite, credit(done).reasons) == (1, {})
    assert done.rollout_credits[0].credit.weight[0] == 1
    assert reference_warnings(row(done)) == ["1 token with features that are not finite"]
    with monkeypatch.context() as patched:
        planted(patched, lambda numbers: spoil(numbers, 9))
        done = deserve(tmp_path / "nine", [group(LONG, LONG)])
    assert credit(done).reasons == {"nonfinite": 1}
    assert (done.rollout_credits[0].credit.weight == 1).all()
    assert reference_warnings(row(done)) == [
        "9 tokens with features that are not finite, 1 rollout without credit for it"
    ]
    assert np.isfinite(list(dict(credit(done).divergence).values())).all()


def test_divergences_that_are_all_equal_are_no_spikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda numbers: np.full_like(numbers, 0.7))
    done = deserve(tmp_path, [group(LONG, LONG)])
    assert done.rollout_credits[0].no_segment_reason == "flat"
    assert (done.rollout_credits[0].credit.weight == 1).all()


def test_a_neighbour_is_the_next_group_that_has_a_reference(tmp_path: Path) -> None:
    groups = [group(LONG, LONG, task=name) for name in "abc"]
    told = [referred(groups[0], "cabin"), referred(groups[1], ""), referred(groups[2], "seat seat seat")]
    done = deserve(tmp_path, groups, told, scoring={"reading_every": 1})
    assert [each.next_signal is not None for each in done.rollout_credits] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert shuffled(done).rollouts == 4
    alone = deserve(tmp_path / "alone", groups[:1], told[:1], scoring={"reading_every": 1})
    assert shuffled(alone).rollouts == 0
    assert shuffled(alone).overlap is None
    same = [referred(each, "cabin seat") for each in groups]
    twins = deserve(tmp_path / "twins", groups, same, scoring={"reading_every": 1})
    found = shuffled(twins)
    assert found.own_tokens == found.other_tokens == found.common_tokens > 0
    assert found.overlap == 1


def test_the_method_s_threshold_is_chosen_on_the_first_batch(tmp_path: Path) -> None:
    done = deserve(tmp_path, [group(LONG, LONG)], method={**SGCD, "calibrate": True})
    assert credit(done).method["calibration"]["spike"] in (3.0, 4.0, 5.0, 6.0)


def test_nothing_is_said_of_credit_where_no_reference_is_needed(tmp_path: Path) -> None:
    done = deserve(tmp_path, [group(LONG, LONG)], (), method={"name": "grpo"})
    assert (done.reference_metrics, done.credit_metrics) == (None, None)
    assert all((each.credit.weight == 1).all() and each.record.features is None for each in done.rollout_credits)
