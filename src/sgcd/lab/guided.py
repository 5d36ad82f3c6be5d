"""Play lab tasks as the teacher would: the sampler sees a reference in its prompt, the rollout's record stays clean."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.act.environment import Sampled, Sampler, Session
from sgcd.act.rollout import play, seed_of
from sgcd.act.settings import Limits
from sgcd.chat import Chat
from sgcd.contrast.insert import block, insert
from sgcd.lab.world import Airline
from sgcd.records import Ids, Rollout, Task

LIMITS = Limits(turns=12, tokens=640)


@dataclass(slots=True)
class Guided:
    """A session whose first ids, the prompt, get a reference."""

    inner: Session
    reference: Ids
    insert_at: int
    begun: bool = False

    async def sample(self, new: Ids, limit: int) -> Sampled:
        fed = new if self.begun else insert(new, self.insert_at, self.reference)
        self.begun = True
        return await self.inner.sample(fed, limit)

    def close(self) -> None:
        self.inner.close()


async def play_guided(
    tasks: Sequence[Task],
    texts: Sequence[str],
    trials: int,
    chat: Chat,
    sampler: Sampler,
    seed: int,
    temperature: float = 1.0,
) -> list[list[Rollout]]:
    """`trials` rollouts of each task, with its text in the context; an empty text is no reference at all.

    Seeds depend on task and trial alone: with and without a reference, trials are paired.
    """

    async def one(index: int, task: Task, text: str, trial: int) -> Rollout:
        own = seed_of(seed, "guided", task.id, trial)
        session: Session = cohort.session(index, own)
        if text:
            opening = await Airline().open(task, own)
            opened = chat.open(opening.messages, opening.tools, opening.harness)
            session = Guided(session, block(chat, text), opened.insert_at)
        return await play(task, Airline(), chat, session, LIMITS, trial, own)

    plays = [(task, text, trial) for task, text in zip(tasks, texts, strict=True) for trial in range(trials)]
    rollouts: list[Rollout] = []
    for at in range(0, len(plays), sampler.slots):
        some = plays[at : at + sampler.slots]
        async with sampler.cohort(len(some), temperature) as cohort:
            rollouts += await asyncio.gather(*(one(index, *this) for index, this in enumerate(some)))
    return [rollouts[at : at + trials] for at in range(0, len(rollouts), trials)]
