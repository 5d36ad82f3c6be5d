"""Plays the siblings of tasks side by side until enough groups are mixed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from sgcd.act.environment import Cohort, Sampler, Session, TaskSuite
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.act.task_order import TaskCursor, TaskOrder
from sgcd.chat import Chat
from sgcd.records import Group, Rollout, Task
from sgcd.seeds import derive_seed

_Result = TypeVar("_Result")
PlayTasks = Callable[[Sequence[Task]], Awaitable[list[Group]]]
"""Plays all siblings of some tasks and returns their groups, in the order of the tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayContext:
    """Where rollouts are played, and with which policy."""

    task_suite: TaskSuite
    chat: Chat
    sampler: Sampler
    limits: Limits


async def play_cohort(
    recorders: Sequence[RolloutRecorder],
    context: PlayContext,
    *,
    temperature: float | None = None,
    wrap_session: Callable[[int, Session], Session] | None = None,
    on_rollout_done: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Play the tasks of `recorders` together; returns the rollouts in their order.

    `wrap_session` puts a session around the sampler's, by the index of its recorder. `on_rollout_done` gets the index
    and the rollout as soon as it ends. If the sampler or a callback raises, or the caller is cancelled, no rollout is
    left running.
    """

    async def play(index: int, recorder: RolloutRecorder, cohort: Cohort) -> Rollout:
        session = cohort.session(index, recorder.seed)
        if wrap_session:
            session = wrap_session(index, session)
        environment = context.task_suite.environment_factory()
        rollout = await play_rollout(recorder, environment, session, chat=context.chat, limits=context.limits)
        if on_rollout_done:
            on_rollout_done(index, rollout)
        return rollout

    async with context.sampler.cohort(len(recorders), temperature) as cohort:
        return await gather_or_cancel(play(index, recorder, cohort) for index, recorder in enumerate(recorders))


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Like `asyncio.gather`, but if one raises, the others are cancelled and have ended before it is raised here."""
    running = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()  # does nothing to a task that is done
        await asyncio.gather(*running, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class CollectedGroups:
    """The groups that a step played, each field in task order."""

    kept: tuple[Group, ...]
    """Mixed, at most as many as the step needs: the step learns from these."""
    extra: tuple[Group, ...]
    """Mixed as well, but after the last kept group: the step does not learn from them. Their tasks come again."""
    same_outcome: tuple[Group, ...]
    """The rewards are equal or nearly so, or fewer than two rollouts are unbroken."""
    rounds: int
    cursor: TaskCursor

    @property
    def num_rollouts(self) -> int:
        """Broken ones included."""
        groups = (*self.kept, *self.extra, *self.same_outcome)
        return sum(len(group.rollouts) + len(group.broken) for group in groups)


async def collect_mixed_groups(
    cursor: TaskCursor,
    settings: SiblingsSettings,
    context: PlayContext,
    *,
    seed: int,
    step: int,
    on_mixed_group: Callable[[Group], None] | None = None,
) -> CollectedGroups:
    """`collect_until_mixed` of the training tasks, played here.

    `on_mixed_group` gets each mixed group as soon as its last sibling has ended.
    """

    def on_group_done(group: Group) -> None:
        if on_mixed_group and group.is_mixed(settings.min_reward_gap):
            on_mixed_group(group)

    async def play_tasks(tasks: Sequence[Task]) -> list[Group]:
        return await play_groups(
            tasks, context, group_size=settings.group_size, seed=seed, step=step, on_group_done=on_group_done
        )

    order = TaskOrder(context.task_suite.splits["train"], seed)
    groups_per_cohort = max(1, context.sampler.slots // settings.group_size)
    return await collect_until_mixed(cursor, settings, order, play_tasks, groups_per_cohort=groups_per_cohort)


async def collect_until_mixed(
    cursor: TaskCursor,
    settings: SiblingsSettings,
    order: TaskOrder,
    play_tasks: PlayTasks,
    *,
    groups_per_cohort: int,
) -> CollectedGroups:
    """Play training tasks until `settings.groups` groups are mixed, the rounds are used up, groups x rounds
    tasks were played, or every task was tried.

    A round takes ceil(need / share of mixed groups so far) tasks. The first mixed groups in task order are kept, in
    whatever order they finished. The cursor is left after the last kept task when the step is full, else after the
    last task tried.
    """
    num_needed = settings.groups
    max_tried = num_needed * settings.rounds  # as many as would be played without looking ahead, at worst
    tried: dict[int, Group] = {}  # place in the sequence -> its group, in task order
    mixed: list[int] = []  # the places of mixed groups
    rounds = 0
    while rounds < settings.rounds and (num_missing := num_needed - len(mixed)) > 0:
        mixed_share = cursor.count_groups(len(tried), len(mixed)).mixed_share
        places = order.next(cursor, tried, min(ceil(num_missing / mixed_share), max_tried - len(tried)))
        if not places:
            break
        rounds += 1
        for start in range(0, len(places), groups_per_cohort):
            chunk = places[start : start + groups_per_cohort]
            tasks = [order[place] for place in chunk]
            groups = await play_tasks(tasks)
            tried.update(zip(chunk, groups, strict=True))
            mixed = [place for place, group in tried.items() if group.is_mixed(settings.min_reward_gap)]
            if len(mixed) >= num_needed:
                break  # the rest of the round comes after the last group that is needed
    kept = mixed[:num_needed]
    last = kept[-1] if len(kept) == num_needed else max(tried, default=-1)
    return CollectedGroups(
        kept=tuple(tried[place] for place in kept),
        extra=tuple(tried[place] for place in mixed[num_needed:]),
        same_outcome=tuple(group for place, group in tried.items() if place not in mixed),
        rounds=rounds,
        cursor=cursor.count_groups(len(tried), len(mixed)).advance(last, tried),
    )


async def play_groups(
    tasks: Sequence[Task],
    context: PlayContext,
    *,
    group_size: int,
    seed: int,
    step: int,
    on_group_done: Callable[[Group], None] | None = None,
) -> list[Group]:
    """Play `group_size` siblings of each task, together as far as the sampler has slots; returns the groups in order.

    `on_group_done` gets each group as soon as its last sibling has ended, while other groups are still being played.
    """
    siblings = range(group_size)
    recorders = [RolloutRecorder(task, i, derive_seed(seed, step, task.id, i)) for task in tasks for i in siblings]
    rollouts: dict[int, Rollout] = {}
    groups: dict[int, Group] = {}

    def add_rollout(index: int, rollout: Rollout) -> None:
        rollouts[index] = rollout
        number = index // group_size
        members = [number * group_size + sibling for sibling in siblings]
        if all(member in rollouts for member in members):
            groups[number] = _build_group(tasks[number], [rollouts[member] for member in members])
            if on_group_done:
                on_group_done(groups[number])

    for start in range(0, len(recorders), context.sampler.slots):
        cohort = recorders[start : start + context.sampler.slots]
        await play_cohort(
            cohort, context, on_rollout_done=lambda index, rollout, start=start: add_rollout(start + index, rollout)
        )
    return [groups[number] for number in range(len(tasks))]


def _build_group(task: Task, rollouts: Sequence[Rollout]) -> Group:
    return Group(
        task,
        tuple(rollout for rollout in rollouts if not rollout.broken),
        tuple(rollout for rollout in rollouts if rollout.broken),
    )
