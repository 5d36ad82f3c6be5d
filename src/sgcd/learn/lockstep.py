"""Lockstep sampling: a cohort's rollouts wait for each other; each turn is one batch that the seeds alone decide."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sgcd.learn.engine import Engine, Place


class Lockstep:
    """A barrier: when every place that is not closed has asked, in whatever order, all of them are sampled together."""

    def __init__(self, engine: Engine, executor: Executor, size: int) -> None:
        self._engine = engine
        self._executor = executor
        self._open = size
        self._waiting: dict[Place, asyncio.Future[None]] = {}
        self._batch: asyncio.Task[None] | None = None

    async def ask(self, place: Place) -> None:
        """Return when the place's turn has been sampled."""
        answer = self._waiting[place] = asyncio.get_running_loop().create_future()
        self._advance()
        await answer

    def close(self, place: Place) -> None:
        """The barrier no longer waits for this place."""
        answer = self._waiting.pop(place, None)
        if answer and not answer.done():
            answer.set_exception(RuntimeError("sampler: the session was closed while it waited for its turn"))
        self._open -= 1
        self._advance()

    async def finish(self, places: Sequence[Place]) -> None:
        """Wait until the model's thread has let go of the cohort."""
        if self._batch:
            await asyncio.wait({self._batch})

    def _advance(self) -> None:
        if self._waiting and len(self._waiting) == self._open:
            asked, self._waiting = self._waiting, {}
            self._batch = asyncio.create_task(self._play(asked))

    async def _play(self, asked: dict[Place, asyncio.Future[None]]) -> None:
        places = sorted(asked, key=lambda place: place.index)
        error: Exception | None = None
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._engine.turn, places)
        except Exception as raised:
            error = raised
            self._engine.clear()
        for answer in asked.values():
            if answer.done():
                continue
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(None)
