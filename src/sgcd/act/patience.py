"""Waiting for what may raise, hang or block: an environment never stops the loop, nor a rollout beside its own."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from sgcd.endpoint.account import Unanswered
from sgcd.errors import SgcdError

Answer = TypeVar("Answer")


class Broken(Exception):
    """The machinery around a rollout failed; the message is the cause, on one line. Never leaves the act room."""


async def ask(part: str, call: Callable[[], Awaitable[Answer]], seconds: float | None) -> Answer:
    """The environment's answer, or Broken: it raised, or said nothing for `seconds` (None: it keeps time itself).

    The call runs as a task of its own: one that ignores its cancellation is left behind, not waited for.
    """
    task = asyncio.ensure_future(_contained(call))
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()  # does nothing to a task that is done
        task.add_done_callback(_forget)
    if not task.done():
        raise Broken(f"{part}: timed out after {seconds:g} s")
    if task.cancelled():
        raise Broken(f"{part}: cancelled by the environment itself")
    problem = task.exception()
    if isinstance(problem, Unanswered):
        raise Broken(f"{part}: {problem}") from problem
    if problem is not None:
        raise Broken(f"{part}: {in_words(problem)}") from problem
    return task.result()


@contextmanager
def blamed_on(part: str) -> Generator[None, None, None]:
    """Work on what an environment answered; where the answer does not fit, the rollout is broken.

    What the person can put right (a chat template, say) is not the environment's fault and passes through.
    """
    try:
        yield
    except (SgcdError, Broken):
        raise
    except Exception as problem:
        raise Broken(f"{part}: {in_words(problem)}") from problem


def in_words(problem: BaseException) -> str:
    """An exception on one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split()).rstrip(":")


async def _contained(call: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        return await call()
    except SystemExit as problem:  # asyncio would end the whole program
        raise RuntimeError(f"it called exit({problem.code})") from problem


def _forget(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()  # marks it as seen, so that a late failure is not reported as an oversight
