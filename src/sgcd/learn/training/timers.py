"""Where the time of a step goes: seconds by phase, and how long the model's thread was at work."""

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")
PHASES = tuple("sampling environment reference teacher scoring credit training evaluation saving other".split())
"""reference: waiting for references and the teacher's inputs while the model has nothing else to do; scoring: passes
of the student or the initial policy that no gradient comes from."""


class ModelThread(ThreadPoolExecutor):
    """The one thread in which the loaded model runs. It counts the seconds in which it was at work."""

    def __init__(self) -> None:
        super().__init__(max_workers=1, thread_name_prefix="model")
        self.busy_seconds = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def timed() -> Any:
            start = time.perf_counter()
            try:
                return fn(*args, **kwargs)
            finally:
                self.busy_seconds += time.perf_counter() - start

        return super().submit(timed)


async def run_in_model_thread(thread: ModelThread, work: Callable[..., _T], *args: Any) -> _T:
    """Do something with the model, in its thread."""
    return await asyncio.get_running_loop().run_in_executor(thread, work, *args)


class StepTimer:
    """Seconds by phase since the last `pop_seconds`; all other seconds are "other"."""

    def __init__(self, thread: ModelThread, on_phase: Callable[[str], None]) -> None:
        self._thread = thread
        self._on_phase = on_phase
        self._seconds: dict[str, float] = {}
        self._started_at = time.perf_counter()
        self._claimed_seconds = 0.0
        """Seconds that `subphase` has booked under a name of its own."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts elapsed time as `name`, minus the time of its subphases."""
        self._on_phase(name)
        start, busy, claimed = time.perf_counter(), self._thread.busy_seconds, self._claimed_seconds
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            if name == "sampling":
                # While rollouts are played, whatever the model's thread does not do is waiting for environments.
                waited = max(0.0, elapsed - (self._thread.busy_seconds - busy))
                self._add_seconds("environment", waited)
                elapsed -= waited
            self._add_seconds(name, max(0.0, elapsed - (self._claimed_seconds - claimed)))

    async def run_in_model_thread(self, name: str, work: Callable[..., _T], *args: Any) -> _T:
        """Do something with the model, in its thread; the seconds that it takes there are those of `name`."""
        self._on_phase(name)

        def timed() -> _T:
            with self.subphase(name):
                return work(*args)

        return await run_in_model_thread(self._thread, timed)

    @contextmanager
    def subphase(self, name: str) -> Iterator[None]:
        """The same for a part of what is done in that thread: its seconds are taken from those around it."""
        start, claimed = time.perf_counter(), self._claimed_seconds
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self._add_seconds(name, max(0.0, elapsed - (self._claimed_seconds - claimed)))
            self._claimed_seconds = claimed + elapsed

    def pop_seconds(self) -> dict[str, float]:
        """Seconds of each phase, and of all; starts again from zero."""
        now = time.perf_counter()
        total = now - self._started_at
        seconds = {name: self._seconds.get(name, 0.0) for name in PHASES}
        seconds["other"] = max(0.0, total - sum(seconds.values()))
        self._started_at, self._seconds = now, {}
        return {**{name: round(value, 6) for name, value in seconds.items()}, "total": round(total, 6)}

    def _add_seconds(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
