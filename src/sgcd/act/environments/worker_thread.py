"""Blocking calls on a thread of their own, so that the loop, and with it every other rollout, goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

from sgcd.act.timeouts import describe_exception

MAX_ABANDONED_CALLS = 256
"""So many calls may be given up on and still run; each holds a thread, which nothing in Python can end from outside."""

_Job = tuple[Callable[[], Any], "Future[_Result]"]
_Result = tuple[Any, Exception | None]
_abandoned: "set[Future[_Result]]" = set()


class WorkerThread:
    """One thread, started at the first call and kept for all of them (a database handle, say, may be bound to it).

    It is a daemon: a call that never returns does not keep the program from ending.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] | None = None
        self.has_abandoned_call = False
        """Whether a call was given up on."""

    async def run(self, function: Callable[[], Any]) -> Any:
        """What the function returns or raises. When the wait is cancelled, the call is given up on."""
        future = self.submit(function)
        try:
            value, error = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.has_abandoned_call = True
            _abandoned.add(future)
            future.add_done_callback(_abandoned.discard)
            raise
        if error is not None:
            raise error
        return value

    def submit(self, function: Callable[[], Any]) -> "Future[_Result]":
        """Have the function called after those before it; nobody need wait."""
        if self._jobs is None:
            if len(_abandoned) >= MAX_ABANDONED_CALLS:
                raise RuntimeError(
                    f"{len(_abandoned)} calls of tools were given up on and still run; no thread is left for more"
                )
            self._jobs = SimpleQueue()
            Thread(target=_run_jobs, args=(self._jobs,), name="sgcd-aside", daemon=True).start()
        future: Future[_Result] = Future()
        self._jobs.put((function, future))
        return future

    def close(self) -> None:
        """Let the thread end once it has done what it was given."""
        if self._jobs is not None:
            self._jobs.put(None)


def _run_jobs(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        function, future = job
        if future.set_running_or_notify_cancel():
            future.set_result(_capture_result(function))


def _capture_result(function: Callable[[], Any]) -> _Result:
    try:
        return function(), None
    except StopIteration as error:  # cannot be raised out of a coroutine
        return None, RuntimeError(describe_exception(error))
    except Exception as error:
        return None, error
    except BaseException as error:  # exit() in a tool must not end the program
        return None, RuntimeError(describe_exception(error))
