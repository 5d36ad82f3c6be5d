"""Play on from inside a recorded rollout: what was said is said again up to a token, and there the policy takes over.

The lab's world hears the same words and so comes to the same state, in an object of its own for every play.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sgcd.act.environment import Cohort, Sampled, Sampler, Session
from sgcd.act.rollout import play, seed_of
from sgcd.chat import Chat, Opened
from sgcd.lab.guided import LIMITS
from sgcd.lab.world import Airline
from sgcd.records import Ids, Message, Rollout, Task


@dataclass(frozen=True, slots=True)
class State:
    """Where a rollout stood after the first `keep` tokens of its response."""

    task: Task
    rollout: Rollout
    keep: int

    @property
    def key(self) -> tuple[str, bytes]:
        """The same for all siblings that came to the same state; what the environment said last adds nothing."""
        stops = [0, *(turn.stop for turn in self.rollout.turns if turn.stop <= self.keep)]
        said = self.keep if self.keep and self.rollout.mask[self.keep - 1] else stops[-1]
        return self.task.id, self.rollout.response[:said].tobytes()

    @property
    def over(self) -> bool:
        """Nothing is left to say."""
        return not self.rollout.turns or self.keep >= self.rollout.turns[-1].stop


@dataclass(slots=True)
class Branch:
    """A session that says again the first `keep` tokens of a rollout, then asks the session within."""

    inner: Session
    rollout: Rollout
    keep: int
    turns: int = 0
    """How many turns have been said again."""
    fed: list[Ids] = field(default_factory=list[Ids])
    """All that the session within has to be told before its first token."""
    begun: bool = False

    async def sample(self, new: Ids, limit: int) -> Sampled:
        if self.begun:
            return await self.inner.sample(new, limit)
        self._recognise(new)
        turn = self.rollout.turns[self.turns] if self.turns < len(self.rollout.turns) else None
        start, stop = (turn.start, min(turn.stop, self.keep)) if turn else (0, 0)
        said, logp = self.rollout.response[start:stop], self.rollout.sampled_logp[start:stop]
        self.fed += [new, said]
        self.turns += 1
        if turn and turn.stop <= self.keep:
            cut_off = turn is self.rollout.turns[-1] and self.rollout.messages[-1].get("unfinished", False)
            return Sampled(said, logp, stopped=not cut_off)
        self.begun = True
        more = await self.inner.sample(np.concatenate(self.fed).astype(np.int32), limit - len(said))
        return Sampled(np.concatenate([said, more.ids]), np.concatenate([logp, more.logp]), more.stopped)

    def close(self) -> None:
        self.inner.close()

    def _recognise(self, new: Ids) -> None:
        """What the world says must be what it said when the rollout was played."""
        turns, rollout = self.rollout.turns, self.rollout
        start = turns[self.turns].start if self.turns < len(turns) else len(rollout.response)
        then = rollout.response[turns[self.turns - 1].stop : start] if self.turns else rollout.prompt
        if not np.array_equal(new, then):
            raise RuntimeError(f"rollout {rollout.name}: turn {self.turns} does not begin as it did when it was played")


class Remembered(Chat):
    """A chat that renders the same few messages again and again, and remembers how."""

    def __init__(self, chat: Chat) -> None:
        super().__init__(chat.tokenizer, chat.name)
        self._opened: dict[str, Opened] = {}
        self._extended = lru_cache(maxsize=4096)(self._render)

    def open(self, messages: Sequence[Message], tools: Sequence[object], harness: int) -> Opened:
        key = repr((messages, harness))  # the lab's tools are always the same
        if key not in self._opened:
            self._opened[key] = super().open(messages, tools, harness)  # type: ignore[arg-type]
        return self._opened[key]

    def extend(self, messages: Sequence[Message], opens: bool = True) -> tuple[Ids, tuple[Message, ...]]:
        return self._extended(tuple((message["role"], message["content"]) for message in messages), opens)

    def _render(self, messages: tuple[tuple[str, str], ...], opens: bool) -> tuple[Ids, tuple[Message, ...]]:
        return super().extend([{"role": role, "content": content} for role, content in messages], opens)


async def play_on(
    states: Sequence[State],
    times: int,
    chat: Chat,
    sampler: Sampler,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[int]:
    """How many of `times` plays that go on from each state succeed. Equal states are played once."""
    distinct = {state.key: state for state in states}
    found = {key: times * state.rollout.success for key, state in distinct.items() if state.over}
    # States with as much behind them have about as much before them, and are sampled side by side.
    going = sorted((state for state in distinct.values() if not state.over), key=lambda state: (state.keep, state.key))
    found |= {state.key: 0 for state in going}
    plays = [(state, trial) for state in going for trial in range(times)]
    remembered = Remembered(chat)

    async def one(index: int, state: State, trial: int, cohort: Cohort) -> None:
        own = seed_of(seed, "branch", state.task.id, state.key[1].hex(), trial)
        session = Branch(cohort.session(index, own), state.rollout, state.keep)
        rollout = await play(state.task, Airline(), remembered, session, LIMITS, trial, own)
        if rollout.broken:
            raise RuntimeError(f"rollout {rollout.name} broke: {rollout.broken}")
        found[state.key] += rollout.success

    for at in range(0, len(plays), sampler.slots):
        some = plays[at : at + sampler.slots]
        async with sampler.cohort(len(some), 1.0) as cohort:
            await asyncio.gather(*(one(index, *this, cohort) for index, this in enumerate(some)))
        if at // sampler.slots % 20 == 0:
            say(f"{at + len(some)} of {len(plays)} continuations from {len(going)} states")
    return [found[state.key] for state in states]
