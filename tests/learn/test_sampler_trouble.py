"""What goes wrong around the sampler reaches whoever waits, and holds up nobody else."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from helpers.ragged_conversations import (
    ENDLESS,
    PROMPT,
    VOCABULARY,
    WINDOW,
    both,
    play,
    play_with,
    policy,
    sampler_of,
)
from sgcd.errors import PolicyError, RecipeError
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings


@pytest.fixture(scope="module")
def model() -> Any:
    return policy()


@pytest.fixture(scope="module")
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@both
def test_a_session_that_closes_or_is_cancelled_holds_nobody_up(model: Any, thread: Executor, mode: Any) -> None:
    async def main() -> None:
        sampler = TorchSampler(model, ENDLESS, SamplerSettings(mode=mode), thread)
        async with sampler.cohort(4) as cohort:
            sessions = [cohort.session(i, i) for i in range(4)]
            waiting = asyncio.create_task(sessions[0].sample(PROMPT, 150))
            cancelled = asyncio.create_task(sessions[1].sample(PROMPT, 150))
            await asyncio.sleep(0.01)
            sessions[2].close()
            sessions[2].close()
            cancelled.cancel()
            await asyncio.wait_for(sessions[3].sample(PROMPT, 4), 60)
            await asyncio.wait_for(waiting, 60)
            assert cancelled.cancelled()
            for gone in sessions[1:3]:
                with pytest.raises(RuntimeError, match="closed"):
                    await gone.sample(PROMPT, 1)
        assert [len(played.turns) for played in await play_with(sampler)] == [4, 3, 2, 4, 3, 2, 4]

    asyncio.run(main())


@both
def test_leaving_a_cohort_wakes_whoever_still_waits(model: Any, thread: Executor, mode: Any) -> None:
    async def main() -> None:
        sampler = TorchSampler(model, ENDLESS, SamplerSettings(mode=mode), thread)
        async with sampler.cohort(2) as cohort:
            waiting = asyncio.create_task(cohort.session(0, 0).sample(PROMPT, 400))
            await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="closed while it waited"):
            await asyncio.wait_for(waiting, 60)
        with pytest.raises(ValueError, match="no session 1 to open"):
            cohort.session(1, 0)

    asyncio.run(main())


@both
def test_an_error_in_the_models_thread_reaches_every_session(thread: Executor, mode: Any) -> None:
    model = policy()
    forward = model.forward
    calls = iter(range(100))

    def breaks(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 3:
            raise RuntimeError("out of memory")
        return forward(*args, **kwargs)

    async def main() -> None:
        sampler = TorchSampler(model, ENDLESS, SamplerSettings(mode=mode), thread)
        model.forward = breaks
        async with sampler.cohort(2) as cohort:
            asked = [cohort.session(i, i).sample(PROMPT, 400) for i in range(2)]
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        assert [str(answer) for answer in answers] == ["out of memory"] * 2
        assert len(await play_with(sampler)) == 7

    asyncio.run(main())


def test_a_cancelled_session_leaves_the_free_batch_at_once(thread: Executor) -> None:
    model = policy()
    forward = model.forward
    widths: list[int] = []

    async def main() -> None:
        loop, fifth = asyncio.get_running_loop(), asyncio.Event()

        def counts(**kwargs: Any) -> Any:
            widths.append(len(kwargs["input_ids"]))
            if len(widths) == 5:
                loop.call_soon_threadsafe(fifth.set)
            return forward(**kwargs)

        model.forward = counts
        async with TorchSampler(model, ENDLESS, SamplerSettings(mode="continuous"), thread).cohort(2) as cohort:
            first = asyncio.create_task(cohort.session(0, 0).sample(PROMPT, 400))
            second = asyncio.create_task(cohort.session(1, 1).sample(PROMPT, 200))
            await asyncio.wait_for(fifth.wait(), 60)
            first.cancel()
            assert len((await asyncio.wait_for(second, 60)).token_ids) == 200

    asyncio.run(main())
    assert widths[:5] == [1, 2, 2, 2, 2]  # the prompt that they share is computed once
    assert len(widths) == 200
    assert widths[-1] == 1


def test_a_model_that_keeps_its_memory_elsewhere_is_refused(thread: Executor) -> None:
    model = policy()
    forward = model.forward
    model.forward = lambda past_key_values, **kwargs: forward(**kwargs)
    with pytest.raises(PolicyError, match="qwen3 cached 0 of 2 layers; only models that keep one memory"):
        play(sampler_of(model, thread))


@both
def test_weights_that_are_not_finite_are_named(thread: Executor, mode: str) -> None:
    model = policy()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(PolicyError, match="logits are not finite"):
        play(sampler_of(model, thread, mode))


def test_what_does_not_fit_is_refused(model: Any, thread: Executor) -> None:
    async def main() -> None:
        sampler = sampler_of(model, thread)
        with pytest.raises(
            RecipeError, match=r"8 slots cannot hold a cohort of 9 rollouts; set sampler.slots to 9 or more"
        ):
            async with sampler.cohort(9):
                pass
        async with sampler.cohort(1) as cohort:
            session = cohort.session(0, 0)
            for new, limit in ((PROMPT, 0), (PROMPT[:0], 5), (PROMPT + VOCABULARY, 5)):
                with pytest.raises(ValueError, match="sampler"):
                    await session.sample(new, limit)
            with pytest.raises(PolicyError, match=r"512 tokens of context fill its window of 512"):
                await session.sample(np.full(WINDOW, 5, np.int32), 1)
            with pytest.raises(PolicyError, match=r"do not fit its window of 512; lower siblings\.limits\.tokens"):
                await session.sample(PROMPT, WINDOW - 2)
            assert len((await session.sample(PROMPT, 1)).token_ids) == 1

    asyncio.run(main())
