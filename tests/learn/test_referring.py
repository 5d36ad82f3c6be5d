"""References are asked for early, concurrently, and never in vain for long."""

import asyncio
from typing import Any

import pytest

from helpers.training_runs import LONG, group
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import ReferenceResult
from sgcd.learn.training.teacher_scorer import ReferencePrefetcher


class Slow:
    """Stands for a contrast whose writer takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun: list[str] = []
        self.called_off: list[str] = []

    async def build(self, siblings: Any, *, with_swapped: bool = False) -> ReferenceResult:
        name = siblings.task.id
        self.begun.append(name)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.called_off.append(name)
            raise
        return ReferenceResult(name, None, "not mixed", Literals.from_texts([]))


def groups(*names: str, wins: int = 1) -> list[Any]:
    return [group(LONG, LONG, task=name, wins=wins) for name in names]


async def test_writers_work_at_the_same_time_and_answer_in_the_order_of_the_groups() -> None:
    slow: Any = Slow(0.2)
    began = asyncio.get_running_loop().time()
    async with ReferencePrefetcher(slow) as referring:
        for each in groups("c", "a"):
            referring.prefetch(each)
        await asyncio.sleep(0)
        assert slow.begun == ["c", "a"]  # before anyone waits for them
        told = [await referring.get(each) for each in groups("a", "b", "c")]
    assert [each.task for each in told if each] == ["a", "b", "c"]
    assert slow.begun == ["c", "a", "b"]
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_what_was_asked_in_vain_is_called_off() -> None:
    slow: Any = Slow(60)

    async def broken() -> None:
        async with ReferencePrefetcher(slow) as referring:
            for each in groups("a", "b"):
                referring.prefetch(each)
            await asyncio.sleep(0)
            raise OSError("the sampler broke")

    with pytest.raises(OSError, match="the sampler"):
        await broken()
    assert slow.called_off == ["a", "b"]


async def test_a_group_is_asked_about_once_and_none_where_nobody_needs_it() -> None:
    slow: Any = Slow(0)
    async with ReferencePrefetcher(slow) as referring:
        for each in groups("a") + groups("a"):
            referring.prefetch(each)
        await asyncio.sleep(0)
    assert len(slow.begun) == 1
    async with ReferencePrefetcher(None) as referring:
        for each in groups("a"):
            referring.prefetch(each)
        assert await referring.get(groups("a")[0]) is None
