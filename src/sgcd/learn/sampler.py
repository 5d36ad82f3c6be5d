"""The policy's own sampler, as act needs it: cohorts of sessions, sampled in lockstep or freely."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager

import numpy as np
from transformers import PreTrainedModel

from sgcd.act.environment import Sampled
from sgcd.chat import Chat
from sgcd.errors import PolicyError, RecipeError
from sgcd.learn.draw import Uniforms
from sgcd.learn.engine import Engine, Place
from sgcd.learn.free import Free
from sgcd.learn.lockstep import Lockstep
from sgcd.learn.policy import window_of
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Ids


class TorchSampler:
    """Samples from a causal model. `executor` has one thread, the only one that touches the model."""

    def __init__(self, model: PreTrainedModel, chat: Chat, settings: SamplerSettings, executor: Executor) -> None:
        self._engine = Engine(model, settings.slots, chat.ends, settings.top_p)
        self._executor = executor
        self._settings = settings
        self.ends = chat.ends
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.window = window_of(model.config)
        self._free = Free(self._engine, executor) if settings.mode == "free" else None
        self._room = settings.slots
        self._freed = asyncio.Condition()

    @property
    def slots(self) -> int:
        """The largest cohort."""
        return self._settings.slots

    @asynccontextmanager
    async def cohort(self, size: int, temperature: float | None = None) -> AsyncIterator["TorchCohort"]:
        """Wait for room, then sample `size` rollouts. In lockstep a cohort has the sampler to itself."""
        if size > self.slots:
            raise RecipeError(
                f"sampler.slots: {self.slots} slots cannot hold a cohort of {size} rollouts; "
                f"set sampler.slots to {size} or more"
            )
        taken = size if self._free else self.slots
        async with self._freed:
            await self._freed.wait_for(lambda: self._room >= taken)
            self._room -= taken
        pace = self._free or Lockstep(self._engine, self._executor, size)
        heat = self._settings.temperature if temperature is None else temperature
        cohort = TorchCohort(self, pace, size, heat)
        try:
            yield cohort
        finally:
            cohort.close()
            await pace.finish(cohort.places)
            async with self._freed:
                self._room += taken
                self._freed.notify_all()


class TorchCohort:
    """Rollouts that are sampled together."""

    def __init__(self, sampler: TorchSampler, pace: Lockstep | Free, size: int, temperature: float) -> None:
        self.sampler = sampler
        self.pace = pace
        self._temperature = temperature
        self._size = size
        self._sessions: dict[int, TorchSession] = {}
        self._closed = False

    def session(self, index: int, seed: int) -> "TorchSession":
        """The session of the cohort's rollout number `index`; its draws depend on `seed` alone."""
        if self._closed or not 0 <= index < self._size or index in self._sessions:
            raise ValueError(
                f"sampler: a cohort of {self._size} has no session {index} to open, or has already opened it"
            )
        self._sessions[index] = TorchSession(self, Place(index, self._temperature, Uniforms(seed)))
        return self._sessions[index]

    @property
    def places(self) -> list[Place]:
        return [session.place for session in self._sessions.values()]

    def close(self) -> None:
        self._closed = True
        for session in self._sessions.values():
            session.close()


class TorchSession:
    """One rollout's place in the sampler: what was fed and sampled stays, so that each turn sends only new ids."""

    def __init__(self, cohort: TorchCohort, place: Place) -> None:
        self.place = place
        self._cohort = cohort
        self._busy = False

    async def sample(self, new: Ids, limit: int) -> Sampled:
        """Append `new` to the context, then sample at most `limit` tokens, up to and including the end of the turn."""
        self._check(new, limit)
        self.place.begin(new, limit)
        self._busy = True
        try:
            await self._cohort.pace.ask(self.place)
        except BaseException:
            # Also when cancelled: nobody knows how far the turn came, and the others must not wait for it.
            self.close()
            raise
        finally:
            self._busy = False
        ids, logp = self.place.ids, self.place.logp
        stopped = ids[-1] in self._cohort.sampler.ends
        return Sampled(np.array(ids, np.int32), np.array(logp, np.float32), stopped)

    def close(self) -> None:
        if not self.place.closed:
            self.place.closed = True
            self._cohort.pace.close(self.place)

    def _check(self, new: Ids, limit: int) -> None:
        sampler = self._cohort.sampler
        if self.place.closed or self._busy:
            raise RuntimeError(
                "sampler: the session is closed" if self.place.closed else "sampler: the session is busy"
            )
        context = self.place.length + len(self.place.ids[-1:]) + len(new)
        if not context or limit < 1:
            raise ValueError(
                f"sampler: a turn needs a context and a limit, got {context} tokens and a limit of {limit}"
            )
        if len(new) and not 0 <= new.min() <= new.max() < sampler.vocabulary:
            raise ValueError(f"sampler: ids must lie in [0, {sampler.vocabulary}), got {new.min()} to {new.max()}")
        if context >= sampler.window:
            raise PolicyError(f"policy: {context} tokens of context fill its window of {sampler.window}")
        if context + limit > sampler.window:
            raise PolicyError(
                f"policy: {context} tokens of context and {limit} to sample do not fit its window of {sampler.window}; "
                "lower siblings.limits.tokens"
            )
