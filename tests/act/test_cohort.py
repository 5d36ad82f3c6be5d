"""Every caller of `play_cohort`: when a session raises, the other rollouts are cancelled, their environments closed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from helpers.scripted_play import CHAT, TASK, ScriptedEnvironment, ScriptedSession, tasks_of
from sgcd.act.environment import SampledTurn, Sampler, TaskSuite
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.act.siblings import PlayContext, gather_or_cancel, play_cohort, play_groups
from sgcd.lab import reference_effect as play_with_reference
from sgcd.lab.reference_effect import play_with_references
from sgcd.measure.evaluate import evaluate_policy
from sgcd.measure.settings import EvaluationSettings
from sgcd.records import TokenIds
from sgcd.study import continuations
from sgcd.study.continuations import BranchPoint, play_continuations


class FailingSampler:
    """The first session raises as soon as the others wait; the others never return."""

    slots = 8

    def __init__(self) -> None:
        self.waiting = 0
        self.all_wait = asyncio.Event()
        self.closed = 0
        self.cancelled = 0

    @asynccontextmanager
    async def cohort(self, size: int, temperature: float | None = None):
        self.size = size
        yield self

    def session(self, index: int, seed: int) -> "FailingSession":
        return FailingSession(self, index)


class FailingSession:
    def __init__(self, sampler: FailingSampler, index: int) -> None:
        self.sampler, self.index = sampler, index

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        sampler = self.sampler
        if self.index == 0:
            await sampler.all_wait.wait()
            raise MemoryError("no room")
        sampler.waiting += 1
        if sampler.waiting == sampler.size - 1:
            sampler.all_wait.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            sampler.cancelled += 1
            raise
        raise AssertionError

    def close(self) -> None:
        self.sampler.closed += 1


class Environments:
    """Makes environments and counts those that were closed."""

    def __init__(self) -> None:
        self.made: list[ScriptedEnvironment] = []

    def __call__(self) -> ScriptedEnvironment:
        self.made.append(ScriptedEnvironment())
        return self.made[-1]


Play = Callable[[PlayContext], Awaitable[Any]]


def by_cohort(context: PlayContext) -> Awaitable[Any]:
    return play_cohort([RolloutRecorder(TASK, i, i) for i in range(3)], context)


def by_groups(context: PlayContext) -> Awaitable[Any]:
    return play_groups([TASK], context, group_size=3, seed=0, step=0)


def by_evaluation(context: PlayContext) -> Awaitable[Any]:
    return evaluate_policy(context, EvaluationSettings(tasks=3, trials=0), seed=0, step=0)


def by_references(context: PlayContext) -> Awaitable[Any]:
    return play_with_references(tasks_of(3), [""] * 3, 1, chat=context.chat, sampler=context.sampler, seed=0)


async def by_continuations(context: PlayContext) -> None:
    environment, session = ScriptedEnvironment(), ScriptedSession(["found"])
    rollout = await play_rollout(RolloutRecorder(TASK, 0, 0), environment, session, chat=CHAT, limits=context.limits)
    state = BranchPoint(TASK, rollout, num_kept=0)
    await play_continuations([state], 3, chat=context.chat, sampler=context.sampler, seed=0)


@pytest.mark.parametrize("play", [by_cohort, by_groups, by_evaluation, by_references, by_continuations])
async def test_when_one_session_raises_the_others_are_cancelled_and_closed(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, environments = FailingSampler(), Environments()
    suite = TaskSuite(environments, {"train": (TASK,), "dev": tuple(tasks_of(3))})
    context = PlayContext(task_suite=suite, chat=CHAT, sampler=cast(Sampler, sampler), limits=Limits())
    for module in (play_with_reference, continuations):
        monkeypatch.setattr(module, "lab_context", lambda chat, sampler: context)
    monkeypatch.setattr(continuations, "CachedChat", lambda chat: chat)
    before = asyncio.all_tasks()
    with pytest.raises(MemoryError):
        await asyncio.wait_for(play(context), 5)
    assert asyncio.all_tasks() == before
    assert (sampler.cancelled, sampler.closed) == (2, 3)
    assert [environment.closed for environment in environments.made] == [1] * 3


async def test_results_come_in_order_and_one_that_raises_ends_the_others() -> None:
    ended: list[int] = []
    turn = {2: asyncio.Event(), 1: asyncio.Event(), 0: asyncio.Event(), 9: asyncio.Event()}
    turn[2].set()
    turn[9].set()

    async def wait(number: int) -> int:
        try:
            await turn[number].wait()
            if 0 < number < 9:
                turn[number - 1].set()
        finally:
            ended.append(number)
        if number == 9:
            raise MemoryError
        return number

    assert await gather_or_cancel(wait(number) for number in range(3)) == [0, 1, 2]
    assert ended == [2, 1, 0]
    turn[0].clear()
    with pytest.raises(MemoryError):
        await gather_or_cancel(wait(number) for number in (0, 9))
    assert sorted(ended[3:]) == [0, 9]
