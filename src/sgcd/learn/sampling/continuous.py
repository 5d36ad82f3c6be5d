"""Free sampling: places join and leave the batch at any token, so slow tools hold nobody up."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sgcd.learn.sampling.engine import Engine, SequenceState

_TurnFutures = dict[SequenceState, asyncio.Future[None]]


class ContinuousBatcher:
    """A loop that goes on while any place has a turn to sample; one token for everybody, then whoever asked joins."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor
        self._joining: _TurnFutures = {}
        self._running: _TurnFutures = {}
        self._leaving: list[SequenceState] = []
        self._loop_task: asyncio.Task[None] | None = None

    async def sample_turn(self, sequence: SequenceState) -> None:
        """Return when the place's turn has been sampled."""
        future = self._joining[sequence] = asyncio.get_running_loop().create_future()
        if not self._loop_task or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._run_loop())
        await future

    def remove(self, sequence: SequenceState) -> None:
        """Take the place out of the batch, or out of the queue."""
        future = self._joining.pop(sequence, None)
        if not future and sequence in self._running:
            future = self._running[sequence]
            self._leaving.append(sequence)
        if future and not future.done():
            future.set_exception(RuntimeError("sampler: the session was closed while it waited for its turn"))

    async def wait_until_done(self, sequences: Sequence[SequenceState]) -> None:
        """Wait until the model's thread has let go of these places, where nobody else keeps it busy."""
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
