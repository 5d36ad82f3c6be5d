"""Free sampling: places join and leave the batch at any token, so slow tools hold nobody up."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

from sgcd.learn.engine import Engine, Place

Answers = dict[Place, asyncio.Future[None]]


class Free:
    """A loop that goes on while any place has a turn to sample; one token for everybody, then whoever asked joins."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor
        self._joining: Answers = {}
        self._playing: Answers = {}
        self._leaving: list[Place] = []
        self._loop: asyncio.Task[None] | None = None

    async def ask(self, place: Place) -> None:
        """Return when the place's turn has been sampled."""
        answer = self._joining[place] = asyncio.get_running_loop().create_future()
        if not self._loop or self._loop.done():
            self._loop = asyncio.create_task(self._play())
        await answer

    def close(self, place: Place) -> None:
        """Take the place out of the batch, or out of the queue."""
        answer = self._joining.pop(place, None)
        if not answer and place in self._playing:
            answer = self._playing[place]
            self._leaving.append(place)
        if answer and not answer.done():
            answer.set_exception(RuntimeError("sampler: the session was closed while it waited for its turn"))

    async def finish(self, places: Sequence[Place]) -> None:
        """Wait until the model's thread has let go of these places, where nobody else keeps it busy."""
        if self._loop and all(place.closed for place in self._playing):
            await asyncio.wait({self._loop})

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._joining or self._playing:
                joining, self._joining = self._joining, {}
                leaving, self._leaving = self._leaving, []
                for place in leaving:
                    self._playing.pop(place, None)
                self._playing |= joining
                finished = await loop.run_in_executor(self._executor, self._engine.step, tuple(joining), leaving)
                for place in finished:
                    answer = self._playing.pop(place)
                    if not answer.done():
                        answer.set_result(None)
        except Exception as error:
            self._engine.clear()
            answers = [*self._playing.values(), *self._joining.values()]
            self._playing, self._joining, self._leaving = {}, {}, []
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)
