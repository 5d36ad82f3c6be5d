"""Runs heavy text work in one thread of its own, so that the event loop and the model's thread go on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_TEXT_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="text")
"""Text work is Python code, of which one thread at a time runs: a second thread would only compete with the loop."""


async def run_in_text_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do pure text work in the thread, in the order of the calls.

    When the wait is cancelled, work that has not begun is dropped, and work that has begun ends unseen. The thread may
    use a `Chat` beside others: no method of a chat changes its tokenizer.
    """
    return await asyncio.get_running_loop().run_in_executor(_TEXT_THREAD, lambda: work(*args, **kwargs))
