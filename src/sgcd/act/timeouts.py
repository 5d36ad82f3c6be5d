"""Call an environment with a timeout and turn its exceptions into `RolloutBroken`, so that other rollouts go on."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from sgcd.endpoint.usage import RequestFailed
from sgcd.errors import SgcdError
from sgcd.text import describe_exception

_Result = TypeVar("_Result")


class RolloutBroken(Exception):
    """The machinery around a rollout failed. The message is the cause, on one line. `act` catches it in every case."""


async def call_with_timeout(source: str, call: Callable[[], Awaitable[_Result]], seconds: float | None) -> _Result:
    """Await `call()`; raise `RolloutBroken` where it raises or takes longer than `seconds` (None: no limit).

    The call runs in its own task. A task that ignores its cancellation is left running.
    """
    task = asyncio.ensure_future(_without_system_exit(call))
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()  # does nothing to a task that is done
        task.add_done_callback(_mark_exception_seen)
    if not task.done():
        raise RolloutBroken(f"{source}: timed out after {seconds:g} s")
    if task.cancelled():
        raise RolloutBroken(f"{source}: cancelled by the environment itself")
    error = task.exception()
    if isinstance(error, RequestFailed):
        raise RolloutBroken(f"{source}: {error}") from error
    if error is not None:
        raise RolloutBroken(f"{source}: {describe_exception(error)}") from error
    return task.result()


@contextmanager
def break_rollout_on_error(source: str) -> Generator[None, None, None]:
    """Turn an exception of the body, which handles an environment's answer, into `RolloutBroken`.

    `SgcdError` passes through: it names something that the user can fix, such as a chat template.
    """
    try:
        yield
    except (SgcdError, RolloutBroken):
        raise
    except Exception as error:
        raise RolloutBroken(f"{source}: {describe_exception(error)}") from error


async def _without_system_exit(call: Callable[[], Awaitable[_Result]]) -> _Result:
    try:
        return await call()
    except SystemExit as problem:  # asyncio would end the whole program
        raise RuntimeError(f"it called exit({problem.code})") from problem


def _mark_exception_seen(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()  # marks it as seen, so that a late failure is not reported as an oversight
