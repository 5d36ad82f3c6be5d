"""Blocking calls on a thread of their own, so that the loop, and with it every other rollout, goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

from sgcd.act.patience import in_words

MOST_OVERDUE = 256
"""So many calls may be given up on and still run; each holds a thread, which nothing in Python can end from outside."""

Order = tuple[Callable[[], Any], "Future[Outcome]"]
Outcome = tuple[Any, Exception | None]
_overdue: "set[Future[Outcome]]" = set()


class Aside:
    """One thread, started at the first call and kept for all of them (a database handle, say, may be bound to it).

    It is a daemon: a call that never returns does not keep the program from ending.
    """

    def __init__(self) -> None:
        self._orders: SimpleQueue[Order | None] | None = None
        self.overdue = False
        """Whether a call was given up on."""

    async def run(self, function: Callable[[], Any]) -> Any:
        """What the function returns or raises. When the wait is cancelled, the call is given up on."""
        future = self.order(function)
        try:
            value, problem = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.overdue = True
            _overdue.add(future)
            future.add_done_callback(_overdue.discard)
            raise
        if problem is not None:
            raise problem
        return value

    def order(self, function: Callable[[], Any]) -> "Future[Outcome]":
        """Have the function called after those before it; nobody need wait."""
        if self._orders is None:
            if len(_overdue) >= MOST_OVERDUE:
                raise RuntimeError(
                    f"{len(_overdue)} calls of tools were given up on and still run; no thread is left for more"
                )
            self._orders = SimpleQueue()
            Thread(target=_serve, args=(self._orders,), name="sgcd-aside", daemon=True).start()
        future: Future[Outcome] = Future()
        self._orders.put((function, future))
        return future

    def close(self) -> None:
        """Let the thread end once it has done what it was given."""
        if self._orders is not None:
            self._orders.put(None)


def _serve(orders: "SimpleQueue[Order | None]") -> None:
    while (order := orders.get()) is not None:
        function, future = order
        if future.set_running_or_notify_cancel():
            future.set_result(_outcome(function))


def _outcome(function: Callable[[], Any]) -> Outcome:
    try:
        return function(), None
    except StopIteration as problem:  # cannot be raised out of a coroutine
        return None, RuntimeError(in_words(problem))
    except Exception as problem:
        return None, problem
    except BaseException as problem:  # exit() in a tool must not end the program
        return None, RuntimeError(in_words(problem))
