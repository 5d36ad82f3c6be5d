"""What the model does while writers are waited for."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_policy import Watcher, build_context, make_context_sensitive, recipe
from helpers.training_runs import LONG, SGCD, group, referred
from sgcd.contrast.reference import ReferenceResult
from sgcd.learn.scoring.teacher import score_teacher
from sgcd.learn.training import gradient as learning
from sgcd.learn.training import teacher_scorer as teaching
from sgcd.learn.training.context import training_forward_config
from sgcd.learn.training.gradient import GradientAccumulator
from sgcd.learn.training.step import StepCredit, credit_and_accumulate
from sgcd.learn.training.surrogate import BatchSize
from sgcd.learn.training.timers import PHASES, StepTimer
from sgcd.records import Group, Rollout

GROUPS = [group(LONG, LONG, task=name) for name in "abc"]


class Awaited:
    """Each reference comes when something has been done, and not before."""

    def __init__(self, **after: str) -> None:
        self.after = after
        self.done: list[str] = []
        self.more = asyncio.Event()

    async def get(self, group: Group) -> ReferenceResult:
        self.loop = asyncio.get_running_loop()
        wanted = self.after.get(group.task.id)
        while wanted and wanted not in self.done:
            self.more.clear()
            await self.more.wait()
        return referred(group)


def run(path: Path, awaited: Any, seconds: dict[str, float] | None = None, **changes: Any) -> StepCredit:
    plan = recipe(**{"method": SGCD, "scoring": {"reading_every": 0}, **changes})
    alive = build_context(path / "run", plan)
    make_context_sensitive(alive.policy.model)
    timer = StepTimer(alive.model_thread, Watcher().on_phase)
    size = BatchSize.of(each for siblings in GROUPS for each in siblings.rollouts)
    gradient = GradientAccumulator(
        model=alive.policy.model, surrogate=plan.surrogate, size=size, config=training_forward_config(plan)
    )
    working = credit_and_accumulate(
        1,
        GROUPS,
        references=awaited,
        accumulator=gradient,
        config=plan,
        method=alive.method,
        reference_builder=alive.reference_builder,
        timer=timer,
    )
    try:
        result = asyncio.run(asyncio.wait_for(working, 20))
        if seconds is not None:
            seconds.update(timer.pop_seconds())
        return result
    finally:
        alive.model_thread.shutdown()


def watch(awaited: Awaited, monkeypatch: pytest.MonkeyPatch) -> None:
    def noted(name: str, honest: Any) -> Any:
        def called(model: Any, rollouts: Any, *given: Any, **named: Any) -> Any:
            found = honest(model, rollouts, *given, **named)
            first = rollouts[0]
            awaited.done.append(f"{name} {first.task if isinstance(first, Rollout) else first.rollout.task}")
            awaited.loop.call_soon_threadsafe(awaited.more.set)
            return found

        return called

    monkeypatch.setattr(teaching, "score_teacher", noted("score_teacher", score_teacher))
    monkeypatch.setattr(learning, "score_student", noted("score_student", learning.score_student))


def test_the_first_group_is_learnt_while_the_last_reference_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited = Awaited(b="score_student a", c="score_student b")
    watch(awaited, monkeypatch)
    run(tmp_path, awaited)
    assert awaited.done == [
        "score_teacher a",
        "score_student a",
        "score_teacher b",
        "score_student b",
        "score_teacher c",
        "score_student c",
    ]


def test_what_is_there_is_taught_at_once_and_learnt_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited = Awaited(a="score_teacher c", b="score_student a")
    watch(awaited, monkeypatch)
    done = run(tmp_path, awaited)
    assert awaited.done == [
        "score_teacher c",
        "score_teacher a",
        "score_student a",
        "score_teacher b",
        "score_student b",
        "score_student c",
    ]
    assert [each.rollout.task for each in done.rollout_credits] == ["a", "a", "b", "b", "c", "c"]
    assert [each.task for each in done.reference_results] == ["a", "b", "c"]


def test_a_teacher_that_fails_ends_the_step_and_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **named: Any) -> Any:
        raise ValueError("the teacher broke")

    monkeypatch.setattr(teaching, "score_teacher", broken)
    with pytest.raises(ValueError, match="the teacher broke"):
        run(tmp_path, Awaited(a="never", c="never"))  # though the first group is not there


def test_inputs_are_built_beside_the_model_and_their_seconds_are_those_of_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def slow(build: Any) -> Any:
        def built(*given: Any) -> Any:
            threads.append(threading.current_thread().name)
            time.sleep(0.1)
            return build(*given)

        return built

    for name in ("build_teacher_inputs", "with_other_reference"):
        monkeypatch.setattr(teaching, name, slow(getattr(teaching, name)))
    seconds: dict[str, float] = {}
    run(tmp_path, Awaited(), seconds, scoring={"reading_every": 1})
    assert len(threads) == 3 * len(GROUPS)  # own, next and swapped
    assert set(threads) == {"text_0"}
    assert seconds["reference"] > 0.09  # nobody has anything to do before the first inputs are there
    assert abs(sum(seconds[phase] for phase in PHASES) - seconds["total"]) < 1e-4
