"""Many rollouts of one task, played until successes and failures mix."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from math import ceil

from sgcd.act.environment import Cohort, Sampler, Stage
from sgcd.act.order import Cursor, Order
from sgcd.act.rollout import play, seed_of
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.chat import Chat
from sgcd.records import Rollout, Siblings, Task

Played = AsyncGenerator[tuple[Siblings, ...], None]


@dataclass(frozen=True, slots=True)
class Play:
    """One rollout that is to be played."""

    task: Task
    sibling: int
    seed: int


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a step learns from, and what was played on the way to it; each in task order."""

    kept: tuple[Siblings, ...]
    """Mixed, and never more than asked."""
    surplus: tuple[Siblings, ...]
    """Mixed too, but after the last that was needed: not learnt from, their tasks come again."""
    uniform: tuple[Siblings, ...]
    """Siblings agree, or too few of them are whole."""
    rounds: int
    cursor: Cursor

    @property
    def rollouts_played(self) -> int:
        """The broken ones too."""
        groups = (*self.kept, *self.surplus, *self.uniform)
        return sum(len(group.rollouts) + len(group.broken) for group in groups)


async def gather(
    tasks: Sequence[Task],
    cursor: Cursor,
    settings: SiblingsSettings,
    seed: int,
    play_groups: Callable[[Sequence[Task]], Played],
) -> Gathered:
    """Play tasks until `settings.groups` groups are mixed, the rounds are used up, or every task was tried (method.md
    6(d), with the look-ahead of the design).

    A round takes ceil(need / share of mixed groups so far) tasks at once. The first mixed groups in task order are
    kept, whatever the order in which they were finished. The cursor is left after the last kept task when the step is
    full, after the last task tried when it is not.
    """
    order = Order(tasks, seed)
    need = settings.groups
    budget = need * settings.rounds  # as many as would be played without looking ahead, at worst
    tried: dict[int, Siblings] = {}  # place in the sequence -> its group, in task order
    rounds = 0
    while rounds < settings.rounds and (missing := need - len(mixed_places(tried))) > 0:
        share = cursor.seen(len(tried), len(mixed_places(tried))).share
        places = order.next(cursor, tried, min(ceil(missing / share), budget - len(tried)))
        if not places:
            break
        rounds += 1
        ahead = iter(places)
        async with aclosing(play_groups([order[place] for place in places])) as cohorts:
            async for groups in cohorts:
                tried.update((place, group) for group, place in zip(groups, ahead, strict=False))
                if len(mixed_places(tried)) >= need:
                    break  # what is left of the round comes after the last that is needed
    mixed = mixed_places(tried)
    kept = mixed[:need]
    last = kept[-1] if len(kept) == need else max(tried, default=-1)
    return Gathered(
        kept=tuple(tried[place] for place in kept),
        surplus=tuple(tried[place] for place in mixed[need:]),
        uniform=tuple(group for group in tried.values() if not group.mixed),
        rounds=rounds,
        cursor=cursor.seen(len(tried), len(mixed)).past(last, tried),
    )


def mixed_places(tried: Mapping[int, Siblings]) -> list[int]:
    """Where there is something to learn, in task order."""
    return [place for place, group in tried.items() if group.mixed]


async def play_groups(
    tasks: Sequence[Task],
    size: int,
    stage: Stage,
    chat: Chat,
    sampler: Sampler,
    limits: Limits,
    seed: int,
    step: int,
    whole: Callable[[Siblings], None] | None = None,
) -> Played:
    """Play `size` siblings of each task. Groups come in task order, as many at a time as the sampler has slots for.

    `whole` is told of each group as soon as its last sibling has ended, while others are still being played.
    """
    together = max(1, sampler.slots // size)
    for start in range(0, len(tasks), together):
        some = tasks[start : start + together]
        plays = [Play(task, sibling, seed_of(seed, step, task.id, sibling)) for task in some for sibling in range(size)]
        rollouts: list[Rollout] = []
        ended = partial(_tell, some, size, whole, {})
        for at in range(0, len(plays), sampler.slots):
            cohort = plays[at : at + sampler.slots]
            rollouts += await play_cohort(cohort, stage, chat, sampler, limits, ended=partial(ended, at))
        yield tuple(_group(task, rollouts[i * size : (i + 1) * size]) for i, task in enumerate(some))


def _tell(
    tasks: Sequence[Task],
    size: int,
    whole: Callable[[Siblings], None] | None,
    known: dict[int, Rollout],
    at: int,
    index: int,
    rollout: Rollout,
) -> None:
    """One more of these groups' rollouts has ended; `known` are those that have."""
    known[at + index] = rollout
    group = (at + index) // size
    own = range(group * size, (group + 1) * size)
    if whole and all(play in known for play in own):
        whole(_group(tasks[group], [known[play] for play in own]))


def _group(task: Task, rollouts: Sequence[Rollout]) -> Siblings:
    return Siblings(task, tuple(r for r in rollouts if not r.broken), tuple(r for r in rollouts if r.broken))


async def play_cohort(
    plays: Sequence[Play],
    stage: Stage,
    chat: Chat,
    sampler: Sampler,
    limits: Limits,
    temperature: float | None = None,
    ended: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Play some rollouts side by side. If the sampler fails or the caller is cancelled, none is left running.

    `ended` is told of each as it ends.
    """

    async def one(index: int, wanted: Play, cohort: Cohort) -> Rollout:
        session = cohort.session(index, wanted.seed)
        rollout = await play(wanted.task, stage.environment(), chat, session, limits, wanted.sibling, wanted.seed)
        if ended:
            ended(index, rollout)
        return rollout

    async with sampler.cohort(len(plays), temperature) as cohort:
        running = [asyncio.create_task(one(index, wanted, cohort)) for index, wanted in enumerate(plays)]
        try:
            return await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()  # does nothing to a task that is done
            await asyncio.gather(*running, return_exceptions=True)
