"""Many rollouts of one task, played until successes and failures mix."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from math import ceil

from sgcd.act.environment import Cohort, Sampler, TaskSuite
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.act.task_order import TaskCursor, TaskOrder
from sgcd.chat import Chat
from sgcd.records import Group, Rollout, Task
from sgcd.seeds import derive_seed

GroupStream = AsyncGenerator[tuple[Group, ...], None]


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """One rollout that is to be played."""

    task: Task
    sibling: int
    seed: int


@dataclass(frozen=True, slots=True)
class CollectedGroups:
    """What a step learns from, and what was played on the way to it; each in task order."""

    kept: tuple[Group, ...]
    """Mixed, and never more than asked."""
    extra: tuple[Group, ...]
    """Mixed too, but after the last that was needed: not learnt from, their tasks come again."""
    same_outcome: tuple[Group, ...]
    """Siblings agree, or too few of them are whole."""
    rounds: int
    cursor: TaskCursor

    @property
    def num_rollouts(self) -> int:
        """The broken ones too."""
        groups = (*self.kept, *self.extra, *self.same_outcome)
        return sum(len(group.rollouts) + len(group.broken) for group in groups)


async def collect_mixed_groups(
    tasks: Sequence[Task],
    cursor: TaskCursor,
    settings: SiblingsSettings,
    seed: int,
    play_tasks: Callable[[Sequence[Task]], GroupStream],
) -> CollectedGroups:
    """Play tasks until `settings.groups` groups are mixed, the rounds are used up, or every task was tried (method.md
    6(d), with the look-ahead of the design).

    A round takes ceil(need / share of mixed groups so far) tasks at once. The first mixed groups in task order are
    kept, whatever the order in which they were finished. The cursor is left after the last kept task when the step is
    full, after the last task tried when it is not.
    """
    order = TaskOrder(tasks, seed)
    num_needed = settings.groups
    max_tried = num_needed * settings.rounds  # as many as would be played without looking ahead, at worst
    tried: dict[int, Group] = {}  # place in the sequence -> its group, in task order
    rounds = 0
    while rounds < settings.rounds and (num_missing := num_needed - len(mixed_places(tried))) > 0:
        mixed_share = cursor.count_groups(len(tried), len(mixed_places(tried))).mixed_share
        places = order.next(cursor, tried, min(ceil(num_missing / mixed_share), max_tried - len(tried)))
        if not places:
            break
        rounds += 1
        remaining_places = iter(places)
        async with aclosing(play_tasks([order[place] for place in places])) as cohorts:
            async for groups in cohorts:
                tried.update((place, group) for group, place in zip(groups, remaining_places, strict=False))
                if len(mixed_places(tried)) >= num_needed:
                    break  # what is left of the round comes after the last that is needed
    mixed = mixed_places(tried)
    kept = mixed[:num_needed]
    last = kept[-1] if len(kept) == num_needed else max(tried, default=-1)
    return CollectedGroups(
        kept=tuple(tried[place] for place in kept),
        extra=tuple(tried[place] for place in mixed[num_needed:]),
        same_outcome=tuple(group for group in tried.values() if not group.mixed),
        rounds=rounds,
        cursor=cursor.count_groups(len(tried), len(mixed)).advance(last, tried),
    )


def mixed_places(tried: Mapping[int, Group]) -> list[int]:
    """Where there is something to learn, in task order."""
    return [place for place, group in tried.items() if group.mixed]


async def play_groups(
    tasks: Sequence[Task],
    group_size: int,
    task_suite: TaskSuite,
    chat: Chat,
    sampler: Sampler,
    limits: Limits,
    seed: int,
    step: int,
    on_group_done: Callable[[Group], None] | None = None,
) -> GroupStream:
    """Play `size` siblings of each task. Groups come in task order, as many at a time as the sampler has slots for.

    `whole` is told of each group as soon as its last sibling has ended, while others are still being played.
    """
    groups_per_cohort = max(1, sampler.slots // group_size)
    for start in range(0, len(tasks), groups_per_cohort):
        chunk = tasks[start : start + groups_per_cohort]
        specs = [
            RolloutSpec(task, sibling, derive_seed(seed, step, task.id, sibling))
            for task in chunk
            for sibling in range(group_size)
        ]
        rollouts: list[Rollout] = []
        on_rollout_done = partial(_notify, chunk, group_size, on_group_done, {})
        for offset in range(0, len(specs), sampler.slots):
            cohort = specs[offset : offset + sampler.slots]
            rollouts += await play_cohort(
                cohort, task_suite, chat, sampler, limits, on_rollout_done=partial(on_rollout_done, offset)
            )
        yield tuple(_build_group(task, rollouts[i * group_size : (i + 1) * group_size]) for i, task in enumerate(chunk))


def _notify(
    tasks: Sequence[Task],
    group_size: int,
    on_group_done: Callable[[Group], None] | None,
    finished: dict[int, Rollout],
    offset: int,
    index: int,
    rollout: Rollout,
) -> None:
    """One more of these groups' rollouts has ended; `known` are those that have."""
    finished[offset + index] = rollout
    group_index = (offset + index) // group_size
    members = range(group_index * group_size, (group_index + 1) * group_size)
    if on_group_done and all(member in finished for member in members):
        on_group_done(_build_group(tasks[group_index], [finished[member] for member in members]))


def _build_group(task: Task, rollouts: Sequence[Rollout]) -> Group:
    return Group(
        task,
        tuple(rollout for rollout in rollouts if not rollout.broken),
        tuple(rollout for rollout in rollouts if rollout.broken),
    )


async def play_cohort(
    specs: Sequence[RolloutSpec],
    task_suite: TaskSuite,
    chat: Chat,
    sampler: Sampler,
    limits: Limits,
    temperature: float | None = None,
    on_rollout_done: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Play some rollouts side by side. If the sampler fails or the caller is cancelled, none is left running.

    `ended` is told of each as it ends.
    """

    async def play_one(index: int, spec: RolloutSpec, cohort: Cohort) -> Rollout:
        session = cohort.session(index, spec.seed)
        rollout = await play_rollout(
            spec.task, task_suite.environment_factory(), chat, session, limits, spec.sibling, spec.seed
        )
        if on_rollout_done:
            on_rollout_done(index, rollout)
        return rollout

    async with sampler.cohort(len(specs), temperature) as cohort:
        running = [asyncio.create_task(play_one(index, spec, cohort)) for index, spec in enumerate(specs)]
        try:
            return await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()  # does nothing to a task that is done
            await asyncio.gather(*running, return_exceptions=True)
