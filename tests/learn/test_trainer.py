"""Whole runs of a tiny policy: what is written, what is learnt, and that a run stopped anywhere ends the same."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_policy import STAGE, Watcher, build_context, recipe
from sgcd.act.environment import TaskSuite
from sgcd.errors import FolderError
from sgcd.learn.policy.checkpoint import load_trainer_state
from sgcd.learn.training import progress
from sgcd.learn.training import trainer as room
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.trainer import NO_MIXED_GROUP, Trainer, TrainResult
from sgcd.storage import atomic as files
from sgcd.storage.manifest import MANIFEST_FILE
from sgcd.storage.run_folder import RunFolder


def train(path: Path, watcher: Watcher | None = None, stage: TaskSuite = STAGE, **changes: Any) -> TrainResult:
    plan = recipe(**changes)
    alive = build_context(path, plan, stage)
    try:
        return asyncio.run(Trainer(plan, alive, watcher or Watcher(), folder=RunFolder.open(path)).run())
    finally:
        alive.model_thread.shutdown()


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run, but for times and memory, and for the manifest, whose sizes depend on them."""
    there = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    rows = [dict(row) for row in RunFolder.open(path).read_metrics()]
    for row in rows:
        del row["seconds"], row["peak_memory"]
    del there[MANIFEST_FILE]
    return {**there, "metrics.jsonl": repr(rows).encode()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nobody stopped."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert train(path) == TrainResult(step=4, num_new_steps=4)
    return path


def test_a_run_leaves_what_the_design_says(whole: Path) -> None:
    folder = RunFolder.open(whole)
    assert folder.checkpoint_steps() == [3, 4]
    assert sorted(file.name for file in folder.best_path.iterdir()) == sorted(
        file.name for file in folder.checkpoint_path(4).iterdir()
    )
    assert {row["step"] for row in folder.read_evaluations()} == {0, 2, 4}
    assert [row.step for row in folder.read_metrics()] == [1, 2, 3, 4]
    for step in (1, 2, 3, 4):
        groups = folder.read_rollouts(step)
        kept = [rollout.name for group in groups if group.is_kept for rollout in group.group.rollouts]
        assert kept
        assert list(folder.read_credit(step)) == kept
    assert (folder.policy_path / "model.safetensors").read_bytes() == (
        folder.checkpoint_path(4) / "model.safetensors"
    ).read_bytes()
    assert not list(whole.rglob(".*"))


def test_a_row_holds_what_happened(whole: Path) -> None:
    folder = RunFolder.open(whole)
    for row in folder.read_metrics():
        groups = folder.read_rollouts(row.step)
        rollouts = [rollout for group in groups for rollout in group.group.rollouts]
        assert row.tasks == len(groups) == row.mixed + row.uniform_success + row.uniform_failure
        assert row.rollouts == len(rollouts)
        assert row.tokens_sampled == sum(rollout.num_policy_tokens for rollout in rollouts)
        assert row.success == pytest.approx(sum(rollout.success for rollout in rollouts) / len(rollouts))
        assert row.ratio == pytest.approx(1)  # one update a batch: the policy that learns is the one that played
        assert row.clip_share == 0
        assert row.sampler_gap_max is not None and row.sampler_gap_max < 1e-4
        assert row.grad_norm and row.grad_norm > 0
        assert row.kl is None
        assert row.skipped == ""
        assert row.cuts["tokens"] >= row.endings["token_limit"]  # an answer to a last turn may be left out too
        assert sum(seconds for phase, seconds in row.seconds.items() if phase != "total") == pytest.approx(
            row.seconds["total"], rel=0.01
        )
    assert [row.lr for row in folder.read_metrics()] == [0.025, 0.05, 0.05, 0.05]


def test_each_step_goes_on_where_the_one_before_left_off(whole: Path) -> None:
    folder = RunFolder.open(whole)
    cursors = [load_trainer_state(folder.checkpoint_path(step)).cursor for step in (3, 4)]
    kept = [row.kept for row in folder.read_metrics()]
    assert [cursor.num_mixed for cursor in cursors] == [sum(kept[:3]), sum(kept)]
    assert cursors[1].position > cursors[0].position >= sum(kept[:3])


def test_the_same_again_is_the_same_to_the_byte(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(whole)


@pytest.mark.slow
def test_another_seed_is_another_run(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "other", seed=6)
    assert contents(tmp_path / "other")["policy/model.safetensors"] != contents(whole)["policy/model.safetensors"]


@pytest.mark.slow
def test_validation_leaves_no_trace_on_training(whole: Path, tmp_path: Path) -> None:
    unwatched = TaskSuite(STAGE.environment_factory, {"train": STAGE.splits["train"]})
    train(tmp_path / "blind", stage=unwatched)
    assert contents(tmp_path / "blind")["policy/model.safetensors"] == contents(whole)["policy/model.safetensors"]
    assert not RunFolder.open(tmp_path / "blind").read_evaluations()


def test_the_policy_learns(tmp_path: Path) -> None:
    watcher = Watcher()
    train(
        tmp_path / "run",
        watcher,
        steps=8,
        siblings={"groups": 2, "group_size": 6, "limits": {"turns": 1, "tokens": 60}},
    )
    first, *_, last = watcher.summaries
    assert (first["step"], last["step"]) == (0, 8)
    rates = [summary["modes"]["sampled"]["overall"]["value"] for summary in (first, last)]
    assert rates[1] > rates[0]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the house catches it."""


def count_syncs(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> list[int]:
    """Die at the disk's `limit`-th operation: a write forced to disk, a rename, a removal."""
    seen = [0]

    def watched(operation: Any) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            seen[0] += 1
            if seen[0] == limit:
                raise Killed
            return operation(*given, **named)

        return called

    monkeypatch.setattr(files.os, "fsync", watched(files.os.fsync))
    monkeypatch.setattr(files.shutil, "rmtree", watched(files.shutil.rmtree))
    monkeypatch.setattr(Path, "rename", watched(Path.rename))
    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    return seen


SHORT: dict[str, Any] = {"steps": 2, "evaluation": {"every": 1, "trials": 2}, "checkpoint": {"every": 1, "keep": 1}}


@pytest.mark.slow
def test_stopped_between_any_two_operations_of_the_disk_it_ends_the_same(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen = count_syncs(patch, None)
        train(tmp_path / "whole", **SHORT)
        operations = seen[0]
    expected = contents(tmp_path / "whole")
    assert operations > 60
    for instant in range(4, operations + 1, 17):
        path = tmp_path / f"stopped-{instant}"
        with pytest.MonkeyPatch.context() as patch:
            count_syncs(patch, instant)
            with pytest.raises(Killed):
                train(path, **SHORT)
        train(path, **SHORT)
        assert contents(path) == expected, f"stopped at operation {instant} of {operations}"


@pytest.mark.slow
def test_stopped_in_every_phase_and_again_while_it_recovers_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    class Killer(Watcher):
        def __init__(self, phase: str, times: int) -> None:
            super().__init__()
            self.phase, self.left = phase, times

        def on_phase(self, name: str) -> None:
            self.left -= name == self.phase
            if not self.left:
                raise Killed

    path = tmp_path / "run"
    for phase, times in (("evaluation", 1), ("sampling", 2), ("training", 4), ("credit", 2), ("training", 1)):
        with pytest.raises(Killed):
            train(path, Killer(phase, times))
    with pytest.raises(Killed):
        train(path, Killer("saving", 3))
    train(path)
    assert contents(path) == contents(whole)


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*.safetensors")}
    assert train(whole) == TrainResult(step=4, num_new_steps=0)
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*.safetensors")} == before


def test_what_a_stop_after_the_last_checkpoint_left_undone_is_done(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "checkpoints" / "best")
    shutil.rmtree(path / "policy")
    assert train(path) == TrainResult(step=4, num_new_steps=0)
    assert contents(path) == contents(whole)


@pytest.mark.slow
def test_more_steps_end_as_a_longer_run_does(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "run")
    assert train(tmp_path / "run", steps=6) == TrainResult(step=6, num_new_steps=2)
    train(tmp_path / "long", steps=6)
    assert (
        contents(tmp_path / "run")["policy/model.safetensors"]
        == contents(tmp_path / "long")["policy/model.safetensors"]
    )
    with pytest.raises(FolderError, match="6 steps already"):
        train(tmp_path / "run", steps=4)


def test_a_step_without_a_mixed_group_is_skipped_and_counted(tmp_path: Path) -> None:
    train(
        tmp_path / "run",
        steps=1,
        siblings={"groups": 2, "group_size": 3, "rounds": 1, "limits": {"turns": 1, "tokens": 1}},
    )
    (row,) = RunFolder.open(tmp_path / "run").read_metrics()
    assert row.skipped == NO_MIXED_GROUP
    assert (row.mixed, row.uniform_failure, row.loss) == (0, 2, None)
    weights = [
        (tmp_path / "run" / place / "model.safetensors").read_bytes() for place in ("checkpoints/0000", "policy")
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_best_is_the_first_of_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {0: 0.25, 1: 0.5, 2: 0.5, 3: 0.75, 4: 0.5}

    def scored(rows: Any) -> Any:
        step = rows[0]["step"]
        return {
            "step": step,
            "modes": {"greedy": {"overall": {"value": 1.0}}, "sampled": {"overall": {"value": scores[step]}}},
        }

    monkeypatch.setattr(progress, "summarise_evaluation", scored)
    best: list[int] = []

    class Looking(Watcher):
        def on_step(self, row: Any) -> None:
            told = RunFolder.open(tmp_path / "run").best_path / "state.json"
            best.append(0 if '"step": 0' in told.read_text() else int(told.read_text().split('"step": ')[1][0]))

    train(tmp_path / "run", Looking(), evaluation={"every": 1, "trials": 1}, checkpoint={"every": 9, "keep": 1})
    assert best == [0, 1, 1, 3]  # told before the step's own checkpoint is written
    folder = RunFolder.open(tmp_path / "run")
    assert '"step": 3' in (folder.best_path / "state.json").read_text()
    assert folder.checkpoint_steps() == [4]


@pytest.mark.slow
def test_kl_is_taken_to_the_policy_that_the_run_began_with(tmp_path: Path) -> None:
    train(tmp_path / "run", surrogate={"kl": 0.1})
    train(tmp_path / "stopped", surrogate={"kl": 0.1}, steps=2)
    train(tmp_path / "stopped", surrogate={"kl": 0.1})
    rows = RunFolder.open(tmp_path / "run").read_metrics()
    assert rows[0].kl == pytest.approx(0, abs=1e-9)
    assert rows[-1].kl and rows[-1].kl > 0
    assert [row.kl for row in RunFolder.open(tmp_path / "stopped").read_metrics()] == [row.kl for row in rows]


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = room.optimizer_step

    def poisoned(optimizer: Any, gradient: GradientAccumulator, settings: Any, step: int) -> Any:
        if step == 2:
            gradient.model.model.norm.weight.grad *= float("nan")
        return healthy(optimizer, gradient, settings, step)

    monkeypatch.setattr(room, "optimizer_step", poisoned)
    train(tmp_path / "run", steps=3)
    rows = RunFolder.open(tmp_path / "run").read_metrics()
    assert [row.skipped for row in rows] == ["", "the gradient was not finite", ""]
    assert rows[1].grad_norm is None
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "run" / "policy" / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())
