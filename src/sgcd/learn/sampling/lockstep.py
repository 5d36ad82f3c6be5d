"""Lockstep sampling: a cohort's rollouts wait for each other; each turn is one batch that the seeds alone decide."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sgcd.learn.sampling.engine import Engine, SequenceState


class LockstepBatcher:
    """A barrier: when every place that is not closed has asked, in whatever order, all of them are sampled together."""

    def __init__(self, engine: Engine, executor: Executor, num_sequences: int) -> None:
        self._engine = engine
        self._executor = executor
        self._num_open = num_sequences
        self._waiting_turns: dict[SequenceState, asyncio.Future[None]] = {}
        self._batch_task: asyncio.Task[None] | None = None

    async def sample_turn(self, sequence: SequenceState) -> None:
        """Return when the place's turn has been sampled."""
        future = self._waiting_turns[sequence] = asyncio.get_running_loop().create_future()
        self._start_when_complete()
        await future

    def remove(self, sequence: SequenceState) -> None:
        """The barrier no longer waits for this place."""
        future = self._waiting_turns.pop(sequence, None)
        if future and not future.done():
            future.set_exception(RuntimeError("sampler: the session was closed while it waited for its turn"))
        self._num_open -= 1
        self._start_when_complete()

    async def wait_until_done(self, sequences: Sequence[SequenceState]) -> None:
        """Wait until the model's thread has let go of the cohort."""
        if self._batch_task:
            await asyncio.wait({self._batch_task})

    def _start_when_complete(self) -> None:
        if self._waiting_turns and len(self._waiting_turns) == self._num_open:
            waiting_turns, self._waiting_turns = self._waiting_turns, {}
            self._batch_task = asyncio.create_task(self._sample_batch(waiting_turns))

    async def _sample_batch(self, waiting_turns: dict[SequenceState, asyncio.Future[None]]) -> None:
        sequences = sorted(waiting_turns, key=lambda sequence: sequence.index)
        error: Exception | None = None
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._engine.sample_turn, sequences)
        except Exception as exception:
            error = exception
            self._engine.clear()
        for future in waiting_turns.values():
            if future.done():
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)
