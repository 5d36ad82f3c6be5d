"""Play several rollouts at the same time and leave none running when one of them raises."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sgcd.act.environment import Cohort, Sampler, Session, TaskSuite
from sgcd.act.rollout import RolloutSpec, play_rollout
from sgcd.act.settings import Limits
from sgcd.chat import Chat
from sgcd.records import Rollout

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayContext:
    """Where rollouts are played, and with which policy."""

    task_suite: TaskSuite
    chat: Chat
    sampler: Sampler
    limits: Limits


async def play_cohort(
    specs: Sequence[RolloutSpec],
    context: PlayContext,
    *,
    temperature: float | None = None,
    wrap_session: Callable[[int, Session], Session] | None = None,
    on_rollout_done: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Play `specs` together; returns the rollouts in the order of `specs`.

    `wrap_session` puts a session around the sampler's, by the index of its spec. `on_rollout_done` gets the index and
    the rollout as soon as it ends. If the sampler or a callback raises, or the caller is cancelled, no rollout is left
    running.
    """

    async def play(index: int, spec: RolloutSpec, cohort: Cohort) -> Rollout:
        session = cohort.session(index, spec.seed)
        if wrap_session:
            session = wrap_session(index, session)
        environment = context.task_suite.environment_factory()
        rollout = await play_rollout(spec, environment, session, chat=context.chat, limits=context.limits)
        if on_rollout_done:
            on_rollout_done(index, rollout)
        return rollout

    async with context.sampler.cohort(len(specs), temperature) as cohort:
        return await gather_or_cancel(play(index, spec, cohort) for index, spec in enumerate(specs))


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Like `asyncio.gather`, but if one raises, the others are cancelled and have ended before it is raised here."""
    running = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()  # does nothing to a task that is done
        await asyncio.gather(*running, return_exceptions=True)
