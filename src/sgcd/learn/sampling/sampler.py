"""`TorchSampler`: samples cohorts of rollouts from the policy, in lockstep or continuously, for the act room."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager

import numpy as np
from transformers import PreTrainedModel

from sgcd.act.environment import SampledTurn
from sgcd.chat import Chat
from sgcd.errors import PolicyError, RecipeError
from sgcd.learn.policy.load import get_context_window
from sgcd.learn.sampling.batchers import ContinuousBatcher, LockstepBatcher
from sgcd.learn.sampling.engine import Engine
from sgcd.learn.sampling.sample_tokens import UniformStream
from sgcd.learn.sampling.sequence_state import SequenceState
from sgcd.learn.settings import SamplerSettings
from sgcd.records import TokenIds


class TorchSampler:
    """Samples from a causal model. `executor` has one thread, the only one that touches the model."""

    def __init__(self, model: PreTrainedModel, chat: Chat, settings: SamplerSettings, executor: Executor) -> None:
        self._engine = Engine(model, settings.slots, chat.end_ids, top_p=settings.top_p, lookahead=settings.lookahead)
        self._executor = executor
        self._settings = settings
        self.end_ids = chat.end_ids
        self.vocab_size: int = model.config.get_text_config().vocab_size
        self.context_window = get_context_window(model.config)
        self._continuous_batcher = ContinuousBatcher(self._engine, executor) if settings.mode == "continuous" else None
        self._num_free_slots = settings.slots
        self._slots_freed = asyncio.Condition()

    @property
    def slots(self) -> int:
        """The largest cohort."""
        return self._settings.slots

    @asynccontextmanager
    async def cohort(self, size: int, temperature: float | None = None) -> AsyncIterator["TorchCohort"]:
        """Waits for free slots, then yields a cohort of `size` sessions. In lockstep only one cohort runs at a time."""
        if size > self.slots:
            raise RecipeError(
                f"sampler.slots: {self.slots} slots cannot hold a cohort of {size} rollouts; "
                f"set sampler.slots to {size} or more"
            )
        num_slots = size if self._continuous_batcher else self.slots
        async with self._slots_freed:
            await self._slots_freed.wait_for(lambda: self._num_free_slots >= num_slots)
            self._num_free_slots -= num_slots
        batcher = self._continuous_batcher or LockstepBatcher(self._engine, self._executor, size)
        cohort_temperature = self._settings.temperature if temperature is None else temperature
        cohort = TorchCohort(self, batcher, size, temperature=cohort_temperature)
        try:
            yield cohort
        finally:
            cohort.close()
            await batcher.wait_until_done(cohort.sequences)
            async with self._slots_freed:
                self._num_free_slots += num_slots
                self._slots_freed.notify_all()


class TorchCohort:
    """Rollouts that are sampled together."""

    def __init__(
        self, sampler: TorchSampler, batcher: LockstepBatcher | ContinuousBatcher, size: int, *, temperature: float
    ) -> None:
        self.sampler = sampler
        self.batcher = batcher
        self._temperature = temperature
        self._size = size
        self._sessions: dict[int, TorchSession] = {}
        self._closed = False

    def session(self, index: int, seed: int) -> "TorchSession":
        """Open the session of rollout `index`; its random draws depend on `seed` alone."""
        if self._closed or not 0 <= index < self._size or index in self._sessions:
            raise ValueError(
                f"sampler: a cohort of {self._size} has no session {index} to open, or has already opened it"
            )
        self._sessions[index] = TorchSession(self, SequenceState(index, self._temperature, UniformStream(seed)))
        return self._sessions[index]

    @property
    def sequences(self) -> list[SequenceState]:
        return [session.sequence for session in self._sessions.values()]

    def close(self) -> None:
        self._closed = True
        for session in self._sessions.values():
            session.close()


class TorchSession:
    """One rollout in the sampler. The context is cached, so each turn sends only new ids."""

    def __init__(self, cohort: TorchCohort, sequence: SequenceState) -> None:
        self.sequence = sequence
        self._cohort = cohort
        self._busy = False

    async def sample(self, new_ids: TokenIds, max_new_tokens: int) -> SampledTurn:
        """Append `new_ids` to the context, then sample up to `max_new_tokens` tokens, to the end token of the turn."""
        self._check_turn(new_ids, max_new_tokens)
        self.sequence.start_turn(new_ids, max_new_tokens)
        self._busy = True
        try:
            await self._cohort.batcher.sample_turn(self.sequence)
        except BaseException:
            # Also when cancelled: the state of the turn is unknown, and the other sessions must not wait for it.
            self.close()
            raise
        finally:
            self._busy = False
        ids, logprobs = self.sequence.sampled_ids, self.sequence.logprobs
        hit_end_token = ids[-1] in self._cohort.sampler.end_ids
        return SampledTurn(np.array(ids, np.int32), np.array(logprobs, np.float32), hit_end_token)

    def close(self) -> None:
        if not self.sequence.closed:
            self.sequence.closed = True
            self._cohort.batcher.remove(self.sequence)

    def _check_turn(self, new_ids: TokenIds, max_tokens: int) -> None:
        sampler = self._cohort.sampler
        if self.sequence.closed or self._busy:
            raise RuntimeError(
                "sampler: the session is closed" if self.sequence.closed else "sampler: the session is busy"
            )
        num_context_tokens = self.sequence.num_cached + len(self.sequence.sampled_ids[-1:]) + len(new_ids)
        if not num_context_tokens or max_tokens < 1:
            raise ValueError(
                f"sampler: a turn needs a context and a limit, got {num_context_tokens} tokens and a limit of "
                f"{max_tokens}"
            )
        if len(new_ids) and not 0 <= new_ids.min() <= new_ids.max() < sampler.vocab_size:
            raise ValueError(
                f"sampler: ids must lie in [0, {sampler.vocab_size}), got {new_ids.min()} to {new_ids.max()}"
            )
        if num_context_tokens >= sampler.context_window:
            raise PolicyError(
                f"policy: {num_context_tokens} tokens of context fill its window of {sampler.context_window}"
            )
        if num_context_tokens + max_tokens > sampler.context_window:
            raise PolicyError(
                f"policy: {num_context_tokens} tokens of context and {max_tokens} to sample do not fit its window of "
                f"{sampler.context_window}; lower siblings.limits.tokens"
            )
