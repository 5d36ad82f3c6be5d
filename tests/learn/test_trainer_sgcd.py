"""Whole runs with a reference: what is written, what gamma zero is, and that a run stopped anywhere ends the same."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.group import LastWords
from helpers.tiny_policy import Watcher
from helpers.training_runs import SGCD, contents, policy, train
from sgcd.learn.policy.head import get_backbone
from sgcd.learn.scoring.tree_attention import why_not_shared
from sgcd.learn.training.context import RunContext
from sgcd.learn.training.trainer import TrainResult
from sgcd.measure.health import step_warnings
from sgcd.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert train(path, method={**SGCD, "calibrate": True}, steps=3, checkpoint={"every": 1}) == TrainResult(3, 3)
    return path


@pytest.fixture(scope="module")
def grpo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "grpo"
    train(path, method={"name": "grpo"})
    return path


def test_a_step_leaves_references_and_credit_and_says_what_it_came_to(whole: Path) -> None:
    folder = RunFolder.open(whole)
    for row in folder.read_metrics():
        assert row.credit and row.reference
        kept = [group.group for group in folder.read_rollouts(row.step) if group.is_kept]
        references = folder.read_references(row.step)
        assert [told["task"] for told in references] == [group.task.id for group in kept]
        assert all(told["text"] and told["hash"] and told["cause"] == "" for told in references)
        scored = folder.read_credit(row.step)
        rollouts = [rollout for group in kept for rollout in group.rollouts]
        assert list(scored) == [rollout.name for rollout in rollouts]
        told, written = row.credit, [rollout.response_mask for rollout in rollouts]
        weights = [each.credit.weight for each in scored.values()]
        assert row.reference.groups == row.reference.written == len(kept)
        assert (told.rollouts, told.scored) == (len(rollouts), len(rollouts))
        assert told.tokens == row.tokens_learnt == sum(map(np.sum, written))
        assert told.credited == sum(int((weight > 1).sum()) for weight in weights)
        assert 0 < told.credited <= told.creditable <= told.tokens
        assert told.segments > 0
        divergence = told.divergence
        assert divergence.mean and divergence.max
        assert 0 < divergence.mean <= divergence.max
        assert told.weight.mean == pytest.approx(
            np.concatenate([w[m] for w, m in zip(weights, written, strict=True)]).astype(float).mean()
        )
        shares = {name: place.credit or 0 for name, place in told.where.items()}
        assert sum(shares[name] for name in ("thinking", "call", "answer")) == pytest.approx(1)
        histogram = told.weight.histogram
        assert histogram
        assert histogram.num_unit + sum(histogram.counts) == told.creditable
        assert told.method["calibration"]["spike"] in (3.0, 4.0, 5.0, 6.0)
        assert (row.foreign, row.in_graph, row.invalid) == (0, 0, [])
        assert row.seconds["teacher"] > 0
        for each in scored.values():
            assert each.features is not None
            assert each.outside_literals is not None
            assert each.saliency is not None


def test_credit_is_compared_with_that_of_a_neighbour_s_reference_every_so_often(whole: Path) -> None:
    rows = RunFolder.open(whole).read_metrics()
    credit_metrics = [row.credit for row in rows if row.credit]
    assert [credit.next_reference is not None for credit in credit_metrics] == [True, True, False]
    told = credit_metrics[1].next_reference
    assert told
    assert told.rollouts == credit_metrics[1].scored
    assert told.own_tokens == credit_metrics[1].credited
    assert told.common_tokens <= min(told.own_tokens, told.other_tokens)


def test_gamma_zero_is_grpo_to_the_byte(grpo: Path, tmp_path: Path) -> None:
    train(tmp_path / "zero", method={**SGCD, "gamma": 0})
    train(tmp_path / "one")
    assert policy(tmp_path / "zero") == policy(grpo)
    assert policy(tmp_path / "one") != policy(grpo)
    rows = RunFolder.open(tmp_path / "zero").read_metrics()
    assert all(row.credit and row.credit.divergence.max and not row.invalid for row in rows)


@pytest.mark.slow
def test_looking_at_neighbours_leaves_no_trace_on_training(tmp_path: Path) -> None:
    for name, every in (("never", 0), ("always", 1)):
        train(tmp_path / name, scoring={"reading_every": every})
    assert policy(tmp_path / "never") == policy(tmp_path / "always")
    assert all(
        row.credit and row.credit.next_reference is None for row in RunFolder.open(tmp_path / "never").read_metrics()
    )


def test_a_step_costs_what_grpo_costs_and_one_forward_pass_of_the_teacher(tmp_path: Path) -> None:
    def passes(name: str, **changes: Any) -> list[tuple[int, bool]]:
        seen: list[tuple[int, bool]] = []

        def hook(_: Any, given: Any, named: Any) -> None:
            if not named["use_cache"]:  # the sampler's passes are its own
                seen.append((len(named["input_ids"]), torch.is_grad_enabled()))

        def prepare(alive: RunContext) -> None:
            assert not why_not_shared(alive.policy.model)  # takes passes of its own, once
            get_backbone(alive.policy.model).register_forward_pre_hook(hook, with_kwargs=True)

        train(tmp_path / name, prepare=prepare, steps=1, **changes)
        return seen

    taught, learnt = (1, False), (1, True)  # two groups, each of them one row
    assert passes("grpo", method={"name": "grpo"}) == [learnt, learnt]
    for name, every, cost in (("sgcd", 0, 2), ("sample", 1, 6)):
        found = passes(name, scoring={"reading_every": every})
        assert sorted(found) == [taught] * cost + [learnt] * 2
    between_teachers = passes("swapped", scoring={"reading_every": 0}, method={**SGCD, "compare_with": "swapped"})
    assert sorted(between_teachers) == [taught] * 4 + [learnt] * 2
    calibrated = passes("calibrated", scoring={"reading_every": 0}, method={**SGCD, "calibrate": True})
    assert sorted(calibrated) == [taught] * 4 + [learnt] * 2  # the student by itself, on the first batch alone


class Late(LastWords):
    """Each time as late as it is told."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = [*seconds]

    async def write(self, traces: Any, refused: Any = ()) -> str:
        await asyncio.sleep(self.seconds.pop(0) if self.seconds else 0)
        return await super().write(traces)


@pytest.mark.slow
def test_whoever_writes_first_the_run_ends_the_same(tmp_path: Path) -> None:
    def late(*seconds: float) -> Callable[[RunContext], None]:
        return lambda alive: object.__setattr__(alive.reference_builder, "writer", Late(*seconds))

    for name, *seconds in (("at once",), ("the first is late", 0.4), ("the second is late", 0, 0.4)):
        train(tmp_path / name, prepare=late(*seconds))
        assert contents(tmp_path / name) == contents(tmp_path / "at once")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the house catches it."""


@pytest.mark.slow
def test_stopped_in_every_phase_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    class Killer(Watcher):
        def __init__(self, phase: str, times: int) -> None:
            super().__init__()
            self.phase, self.left = phase, times

        def on_phase(self, name: str) -> None:
            self.left -= name == self.phase
            if not self.left:
                raise Killed

    path = tmp_path / "run"
    told: dict[str, Any] = {"method": {**SGCD, "calibrate": True}, "steps": 3, "checkpoint": {"every": 1}}
    for phase, times in (
        ("reference", 1),
        ("teacher", 2),
        ("scoring", 1),
        ("training", 2),
        ("credit", 2),
        ("saving", 4),
    ):
        with pytest.raises(Killed):
            train(path, Killer(phase, times), **told)
    train(path, **told)
    assert contents(path) == contents(whole)


class Silent:
    """A writer that has nothing to say, or worse."""

    name = "silent"
    reads_steps = False

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def write(self, traces: Any, refused: Any = ()) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(OSError("out of reach"), "writer raised"), ("", "writer gave nothing"), (7, "writer gave nothing")],
)
def test_a_writer_that_fails_is_counted_and_said_and_the_step_is_grpo_s(
    answer: Any, cause: str, grpo: Path, tmp_path: Path
) -> None:
    def prepare(alive: RunContext) -> None:
        object.__setattr__(alive.reference_builder, "writer", Silent(answer))

    train(tmp_path / "run", prepare=prepare)
    assert policy(tmp_path / "run") == policy(grpo)
    folder = RunFolder.open(tmp_path / "run")
    for row in folder.read_metrics():
        assert row.credit and row.reference
        assert row.reference.causes == {cause: row.kept}
        assert row.credit.reasons == {"no_reference": row.credit.rollouts}
        assert (row.credit.scored, row.credit.tokens, row.invalid) == (0, 0, [])
        assert f"2 of 2 groups without a reference: {cause}" in "\n".join(step_warnings(row))
        assert all(told["cause"].startswith(cause) for told in folder.read_references(row.step))
        assert all(each.features is None for each in folder.read_credit(row.step).values())


@pytest.mark.parametrize(("window", "rows"), [(70, "none"), (200, "all")])
def test_a_reference_that_is_too_long_for_the_window_is_cut_or_left_out(window: int, rows: str, tmp_path: Path) -> None:
    class Wordy:
        name = "wordy"
        reads_steps = False

        async def write(self, traces: Any, refused: Any = ()) -> str:
            return "\n".join(["cabin seat cabin seat"] * 100)

    def prepare(alive: RunContext) -> None:
        alive.policy.model.config.max_position_embeddings = window
        object.__setattr__(alive.reference_builder, "writer", Wordy())

    train(tmp_path / "run", prepare=prepare, steps=1)
    (row,) = RunFolder.open(tmp_path / "run").read_metrics()
    assert row.credit and row.reference
    rollouts = row.credit.rollouts
    if rows == "all":
        assert row.reference.rollouts == row.reference.shortened == rollouts
    else:
        assert row.credit.reasons == {"exceeds_window": rollouts}
        assert f"{rollouts} rollouts left the reference no room" in "\n".join(step_warnings(row))
    assert not row.skipped
