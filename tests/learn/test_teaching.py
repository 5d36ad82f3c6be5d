"""What the model does while writers are waited for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from helpers.small import Watcher, heeding, living, recipe
from helpers.training_runs import LONG, SGCD, group, referred
from sgcd.contrast.refer import Referred
from sgcd.learn import gradient as learning
from sgcd.learn import teaching
from sgcd.learn.clock import Clock
from sgcd.learn.crediting import Credited
from sgcd.learn.dense import Dense
from sgcd.learn.gradient import Gradient
from sgcd.records import Siblings

GROUPS = [group(LONG, LONG, task=name) for name in "abc"]


class Awaited:
    """Each reference comes when something has been done, and not before."""

    def __init__(self, **after: str) -> None:
        self.after = after
        self.done: list[str] = []
        self.more = asyncio.Event()

    async def of(self, group: Siblings) -> Referred:
        self.loop = asyncio.get_running_loop()
        wanted = self.after.get(group.task.id)
        while wanted and wanted not in self.done:
            self.more.clear()
            await self.more.wait()
        return referred(group)


def run(path: Path, awaited: Any, **changes: Any) -> Credited:
    plan = recipe(method=SGCD, scoring={"shuffled": 0}, **changes)
    alive = living(path / "run", plan)
    heeding(alive.policy.model)
    dense = Dense(plan, alive, Clock(alive.thread, Watcher().on_phase))
    count = sum(each.written for siblings in GROUPS for each in siblings.rollouts)
    gradient = Gradient(alive.policy.model, plan.surrogate, 1.0, plan.optimizer.tokens, count)
    try:
        return asyncio.run(asyncio.wait_for(dense.of(1, GROUPS, awaited, gradient), 20))
    finally:
        alive.thread.shutdown()


def watch(awaited: Awaited, monkeypatch: pytest.MonkeyPatch) -> None:
    def noted(name: str, honest: Any) -> Any:
        def called(model: Any, rollouts: Any, *given: Any) -> Any:
            found = honest(model, rollouts, *given)
            awaited.done.append(f"{name} {rollouts[0].task}")
            awaited.loop.call_soon_threadsafe(awaited.more.set)
            return found

        return called

    monkeypatch.setattr(teaching, "teach", noted("teach", teaching.teach))
    monkeypatch.setattr(learning, "asked", noted("asked", learning.asked))


def test_the_first_group_is_learnt_while_the_last_reference_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited = Awaited(b="asked a", c="asked b")
    watch(awaited, monkeypatch)
    run(tmp_path, awaited)
    assert awaited.done == ["teach a", "asked a", "teach b", "asked b", "teach c", "asked c"]


def test_what_is_there_is_taught_at_once_and_learnt_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited = Awaited(a="teach c", b="asked a")
    watch(awaited, monkeypatch)
    done = run(tmp_path, awaited)
    assert awaited.done == ["teach c", "teach a", "asked a", "teach b", "asked b", "asked c"]
    assert [each.rollout.task for each in done.deserved] == ["a", "a", "b", "b", "c", "c"]
    assert [each.task for each in done.referred] == ["a", "b", "c"]


def test_a_teacher_that_fails_ends_the_step_and_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("the teacher broke")

    monkeypatch.setattr(teaching, "teach", broken)
    with pytest.raises(ValueError, match="the teacher broke"):
        run(tmp_path, Awaited(a="never", c="never"))  # though the first group is not there
