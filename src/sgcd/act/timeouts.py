"""Waiting for what may raise, hang or block: an environment never stops the loop, nor a rollout beside its own."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from sgcd.endpoint.usage import RequestFailed
from sgcd.errors import SgcdError

_Result = TypeVar("_Result")


class RolloutBroken(Exception):
    """The machinery around a rollout failed; the message is the cause, on one line. Never leaves the act room."""


async def call_with_timeout(source: str, call: Callable[[], Awaitable[_Result]], seconds: float | None) -> _Result:
    """The environment's answer, or Broken: it raised, or said nothing for `seconds` (None: it keeps time itself).

    The call runs as a task of its own: one that ignores its cancellation is left behind, not waited for.
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
    """Work on what an environment answered; where the answer does not fit, the rollout is broken.

    What the person can put right (a chat template, say) is not the environment's fault and passes through.
    """
    try:
        yield
    except (SgcdError, RolloutBroken):
        raise
    except Exception as error:
        raise RolloutBroken(f"{source}: {describe_exception(error)}") from error


def describe_exception(error: BaseException) -> str:
    """An exception on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")


async def _without_system_exit(call: Callable[[], Awaitable[_Result]]) -> _Result:
    try:
        return await call()
    except SystemExit as problem:  # asyncio would end the whole program
        raise RuntimeError(f"it called exit({problem.code})") from problem


def _mark_exception_seen(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()  # marks it as seen, so that a late failure is not reported as an oversight
