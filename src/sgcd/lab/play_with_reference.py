"""Play lab tasks as the teacher would: the sampler sees a reference in its prompt, the rollout's record stays clean."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.act.environment import SampledTurn, Sampler, Session
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.chat import Chat
from sgcd.contrast.insert import encode_reference, insert_reference
from sgcd.lab.world import Airline
from sgcd.records import Rollout, Task, TokenIds
from sgcd.seeds import derive_seed

LAB_LIMITS = Limits(turns=12, tokens=640)


@dataclass(slots=True)
class ReferenceSession:
    """A session whose first ids, the prompt, get a reference."""

    inner: Session
    reference_ids: TokenIds
    reference_position: int
    has_started: bool = False

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        prompt_ids = (
            new_ids if self.has_started else insert_reference(new_ids, self.reference_position, self.reference_ids)
        )
        self.has_started = True
        return await self.inner.sample(prompt_ids, max_new_tokens)

    def close(self) -> None:
        self.inner.close()


async def play_with_references(
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

    async def play_one(index: int, task: Task, text: str, trial: int) -> Rollout:
        rollout_seed = derive_seed(seed, "guided", task.id, trial)
        session: Session = cohort.session(index, rollout_seed)
        if text:
            opening = await Airline().open(task, rollout_seed)
            encoded_prompt = chat.encode_prompt(opening.messages, opening.tools, opening.reference_message)
            session = ReferenceSession(session, encode_reference(chat, text), encoded_prompt.reference_position)
        return await play_rollout(task, Airline(), chat, session, LAB_LIMITS, trial, rollout_seed)

    plays = [(task, text, trial) for task, text in zip(tasks, texts, strict=True) for trial in range(trials)]
    rollouts: list[Rollout] = []
    for start in range(0, len(plays), sampler.slots):
        chunk = plays[start : start + sampler.slots]
        async with sampler.cohort(len(chunk), temperature) as cohort:
            rollouts += await asyncio.gather(*(play_one(index, *spec) for index, spec in enumerate(chunk)))
    return [rollouts[start : start + trials] for start in range(0, len(rollouts), trials)]
