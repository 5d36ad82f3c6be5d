"""The two ways to batch turns for the engine: in lockstep, or continuously."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sgcd.learn.sampling.engine import Engine
from sgcd.learn.sampling.sequence_state import SequenceState

_TurnFutures = dict[SequenceState, asyncio.Future[None]]


class LockstepBatcher:
    """Samples a turn of all open sequences as one batch, as soon as the last of them has called `sample_turn`.

    The batches, and so the bits of the results, depend on the seeds alone, not on the order of the calls.
    """

    def __init__(self, engine: Engine, executor: Executor, num_sequences: int) -> None:
        self._engine = engine
        self._executor = executor
        self._num_open = num_sequences
        self._waiting_turns: _TurnFutures = {}
        self._batch_task: asyncio.Task[None] | None = None

    async def sample_turn(self, sequence: SequenceState) -> None:
        """Return when the turn of this sequence is sampled."""
        future = self._waiting_turns[sequence] = asyncio.get_running_loop().create_future()
        self._start_when_complete()
        await future

    def remove(self, sequence: SequenceState) -> None:
        """Stop waiting for this sequence."""
        future = self._waiting_turns.pop(sequence, None)
        if future and not future.done():
            future.set_exception(RuntimeError("sampler: the session was closed while it waited for its turn"))
        self._num_open -= 1
        self._start_when_complete()

    async def wait_until_done(self, sequences: Sequence[SequenceState]) -> None:
        """Wait until the model's thread has finished with the cohort."""
        if self._batch_task:
            await asyncio.wait({self._batch_task})

    def _start_when_complete(self) -> None:
        if self._waiting_turns and len(self._waiting_turns) == self._num_open:
            waiting_turns, self._waiting_turns = self._waiting_turns, {}
            self._batch_task = asyncio.create_task(self._sample_batch(waiting_turns))

    async def _sample_batch(self, waiting_turns: _TurnFutures) -> None:
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


class ContinuousBatcher:
    """Samples one token of all running sequences at a time; sequences join and leave between two tokens.

    A slow tool delays no other sequence. The loop runs as long as any sequence has a turn to sample.
    """

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor
        self._joining: _TurnFutures = {}
        self._running: _TurnFutures = {}
        self._leaving: list[SequenceState] = []
        self._loop_task: asyncio.Task[None] | None = None

    async def sample_turn(self, sequence: SequenceState) -> None:
        """Return when the turn of this sequence is sampled."""
        future = self._joining[sequence] = asyncio.get_running_loop().create_future()
        if not self._loop_task or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._run_loop())
        await future

    def remove(self, sequence: SequenceState) -> None:
        """Take a sequence out of the batch or the queue."""
        future = self._joining.pop(sequence, None)
        if not future and sequence in self._running:
            future = self._running[sequence]
            self._leaving.append(sequence)
        if future and not future.done():
            future.set_exception(RuntimeError("sampler: the session was closed while it waited for its turn"))

    async def wait_until_done(self, sequences: Sequence[SequenceState]) -> None:
        """Wait until the model's thread has finished with these sequences, if no other sequence runs."""
        if self._loop_task and all(sequence.closed for sequence in self._running):
            await asyncio.wait({self._loop_task})

    async def _run_loop(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._joining or self._running:
                joining, self._joining = self._joining, {}
                leaving, self._leaving = self._leaving, []
                for sequence in leaving:
                    self._running.pop(sequence, None)
                self._running |= joining
                finished = await loop.run_in_executor(self._executor, self._engine.step, tuple(joining), leaving)
                for sequence in finished:
                    future = self._running.pop(sequence)
                    if not future.done():
                        future.set_result(None)
        except Exception as error:
            self._engine.clear()
            futures = [*self._running.values(), *self._joining.values()]
            self._running, self._joining, self._leaving = {}, {}, []
            for future in futures:
                if not future.done():
                    future.set_exception(error)
