"""Where the time of a step goes: seconds by phase, and how long the model's thread was at work."""

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
PHASES = tuple("sampling environment reference teacher scoring credit training evaluation saving other".split())
"""reference: waiting for writers while the model has nothing else to do; scoring: passes of the student that no
gradient comes from."""


class ModelThread(ThreadPoolExecutor):
    """The one thread in which torch is called. It counts the seconds in which it was at work."""

    def __init__(self) -> None:
        super().__init__(max_workers=1, thread_name_prefix="model")
        self.busy = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def timed() -> Any:
            start = time.perf_counter()
            try:
                return fn(*args, **kwargs)
            finally:
                self.busy += time.perf_counter() - start

        return super().submit(timed)


async def think(thread: ModelThread, work: Callable[..., T], *given: Any) -> T:
    """Do something with the model, in its thread."""
    return await asyncio.get_running_loop().run_in_executor(thread, work, *given)


class Clock:
    """Seconds by phase since the last `split`; what no phase claims is "other"."""

    def __init__(self, thread: ModelThread, on_phase: Callable[[str], None]) -> None:
        self._thread = thread
        self._on_phase = on_phase
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter()
        self._claimed = 0.0
        """Seconds of the model's thread that have a name of their own; see `think`."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What passes meanwhile, but for what `think` gives another name."""
        self._on_phase(name)
        start, busy, claimed = time.perf_counter(), self._thread.busy, self._claimed
        try:
            yield
        finally:
            passed = time.perf_counter() - start
            if name == "sampling":
                # While rollouts are played, whatever the model's thread does not do is waiting for environments.
                waited = max(0.0, passed - (self._thread.busy - busy))
                self._add("environment", waited)
                passed -= waited
            self._add(name, max(0.0, passed - (self._claimed - claimed)))

    async def think(self, name: str, work: Callable[..., T], *given: Any) -> T:
        """Do something with the model, in its thread; the seconds that it takes there are those of `name`."""
        self._on_phase(name)

        def timed() -> T:
            with self.part(name):
                return work(*given)

        return await think(self._thread, timed)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The same for a part of what is done in that thread: its seconds are taken from those around it."""
        start, claimed = time.perf_counter(), self._claimed
        try:
            yield
        finally:
            passed = time.perf_counter() - start
            self._add(name, max(0.0, passed - (self._claimed - claimed)))
            self._claimed = claimed + passed

    def split(self) -> dict[str, float]:
        """Seconds of each phase, and of all; starts again from zero."""
        now = time.perf_counter()
        total = now - self._since
        seconds = {name: self._seconds.get(name, 0.0) for name in PHASES}
        seconds["other"] = max(0.0, total - sum(seconds.values()))
        self._since, self._seconds = now, {}
        return {**{name: round(value, 6) for name, value in seconds.items()}, "total": round(total, 6)}

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
