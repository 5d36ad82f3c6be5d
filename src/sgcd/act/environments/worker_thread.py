"""Run blocking calls on a thread, so that the event loop and every other rollout go on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

from sgcd.text import describe_exception

MAX_ABANDONED_CALLS = 256
"""The limit of abandoned calls that still run; each holds a thread, which Python cannot end from outside."""

_Job = tuple[Callable[[], Any], "Future[_Result]"]
_Result = tuple[Any, Exception | None]
_abandoned: "set[Future[_Result]]" = set()


class WorkerThread:
    """One thread for all calls of an environment (a database handle may be bound to it), started at the first call.

    It is a daemon: a call that never returns does not keep the program from ending.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] | None = None
        self.has_abandoned_call = False
        """Whether a call was cancelled while it ran."""

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return or raise what the function does. When the wait is cancelled, the call is abandoned."""
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
        """Queue the function after earlier ones, without waiting for it."""
        if self._jobs is None:
            if len(_abandoned) >= MAX_ABANDONED_CALLS:
                raise RuntimeError(
                    f"{len(_abandoned)} calls of tools were given up on and still run; no thread is left for more"
                )
            self._jobs = SimpleQueue()
            Thread(target=_run_jobs, args=(self._jobs,), name="sgcd-environment", daemon=True).start()
        future: Future[_Result] = Future()
        self._jobs.put((function, future))
        return future

    def close(self) -> None:
        """End the thread after the queued calls."""
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
