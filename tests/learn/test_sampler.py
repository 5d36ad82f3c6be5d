"""The sampler against plain forward passes over the whole context, in both ways of sampling."""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sgcd.act.environment import Sampled
from sgcd.errors import PolicyError, RecipeError
from sgcd.learn.draw import Uniforms
from sgcd.learn.engine import Engine, Place
from sgcd.learn.sampler import TorchCohort, TorchSampler
from sgcd.learn.settings import SamplerSettings

END, VOCABULARY, WINDOW = 2, 60, 512
CHAT: Any = SimpleNamespace(end=END)
SHAPE: Any = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": WINDOW,
    "initializer_range": 0.3,
}
PROMPT = np.array([5, 6, 7], np.int32)
ENDLESS: Any = SimpleNamespace(end=-1)
both = pytest.mark.parametrize("mode", ["lockstep", "free"])


def policy(dtype: torch.dtype = torch.float64, architecture: str = "qwen3") -> Any:
    torch.manual_seed(11)
    qwen = architecture == "qwen3"
    model: Any = Qwen3ForCausalLM(Qwen3Config(**SHAPE)) if qwen else LlamaForCausalLM(LlamaConfig(**SHAPE))
    return model.to(dtype).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return policy()


@pytest.fixture(scope="module")
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def sampler_of(model: Any, thread: Executor, mode: Any = "lockstep", slots: int = 8, **settings: Any) -> TorchSampler:
    return TorchSampler(model, CHAT, SamplerSettings(mode=mode, slots=slots, **settings), thread)


@dataclass
class Played:
    """What one rollout saw: its whole context, and for each of its turns where it begins and what was returned."""

    context: list[int]
    turns: list[tuple[int, Sampled]]


def conversation(index: int) -> list[tuple[np.ndarray, int]]:
    """Ragged prompts (pairs of siblings share one), ragged replies, ragged limits; later rollouts have fewer turns."""
    prompt = np.random.default_rng(index // 2)
    rest = np.random.default_rng(100 + index)
    news = [prompt.integers(3, VOCABULARY, 5 + 9 * (index // 2))]
    news += [rest.integers(3, VOCABULARY, rest.integers(1, 9)) for _ in range(3 - index % 3)]
    return [(new.astype(np.int32), int(rest.integers(1, 20))) for new in news]


async def rollout(cohort: TorchCohort, index: int, pause: Callable[[], float]) -> Played:
    session = cohort.session(index, seed=1000 + index)
    played = Played([], [])
    for new, limit in conversation(index):
        await asyncio.sleep(pause())
        played.context += new.tolist()
        sampled = await session.sample(new, limit)
        played.turns.append((len(played.context), sampled))
        played.context += sampled.ids.tolist()
    session.close()
    return played


async def play_with(sampler: TorchSampler, timing: int | None = None, temperature: float | None = None) -> list[Played]:
    """Play a cohort of seven; `timing` seeds random pauses and the order in which the rollouts start."""
    clock = random.Random(timing)
    order = list(range(7))
    if timing is not None:
        clock.shuffle(order)

    def pause() -> float:
        return 0.0 if timing is None else clock.random() * 0.004

    async with sampler.cohort(7, temperature) as cohort:
        jobs = {index: asyncio.create_task(rollout(cohort, index, pause)) for index in order}
        return await asyncio.wait_for(asyncio.gather(*(jobs[index] for index in range(7))), 60)


def play(sampler: TorchSampler, timing: int | None = None, temperature: float | None = None) -> list[Played]:
    return asyncio.run(play_with(sampler, timing, temperature))


def same(a: list[Played], b: list[Played]) -> bool:
    """Equal to the bit, log-probabilities too."""
    return [p.context for p in a] == [q.context for q in b] and all(
        np.array_equal(s.logp, t.logp)
        for p, q in zip(a, b, strict=True)
        for (_, s), (_, t) in zip(p.turns, q.turns, strict=True)
    )


def reference(model: Any, context: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-softmax after every token of the context, from one plain forward pass."""
    with torch.inference_mode():
        return torch.log_softmax(model(input_ids=torch.tensor([context])).logits[0].double() / temperature, dim=-1)


@both
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_logp_and_ids_are_those_of_a_plain_forward(mode: str, architecture: str, thread: Executor) -> None:
    model = policy(architecture=architecture)
    rollouts = play(sampler_of(model, thread, mode), timing=3, temperature=0.7)
    for index, played in enumerate(rollouts):
        uniforms = np.random.Generator(np.random.Philox(1000 + index)).random(200).tolist()
        logp = reference(model, played.context, 0.7)
        for (start, sampled), (_, limit) in zip(played.turns, conversation(index), strict=True):
            for i, token in enumerate(sampled.ids.tolist()):
                row = logp[start - 1 + i]
                assert token == int((row.exp().cumsum(0) > uniforms.pop(0)).nonzero()[0])
                assert abs(float(row[token]) - float(sampled.logp[i])) < 5e-7
            assert END not in sampled.ids[:-1].tolist()
            assert sampled.stopped == (sampled.ids[-1] == END)
            assert len(sampled.ids) <= limit
            assert sampled.stopped or len(sampled.ids) == limit
    assert {sampled.stopped for played in rollouts for _, sampled in played.turns} == {True, False}


def test_the_engine_is_exact(model: Any) -> None:
    """Records keep float32; here the engine's own numbers are compared, over ragged turns and shared prompts."""
    engine = Engine(model, 4, END, top_p=1.0)
    places = [Place(i, 1.0, Uniforms(i)) for i in range(4)]
    contexts: list[list[int]] = [[] for _ in places]
    for turn in range(2):
        starts: list[int] = []
        for place, context in zip(places, contexts, strict=True):
            new, _ = conversation(place.index)[min(turn, 3 - place.index % 3)]
            place.begin(new, 3 + 5 * place.index)
            context += new.tolist()
            starts.append(len(context))
        engine.turn(places)
        for place, context, start in zip(places, contexts, starts, strict=True):
            context += place.ids
            rows = reference(model, context)[start - 1 : -1]
            expected = rows.gather(1, torch.tensor(place.ids)[:, None])[:, 0]
            assert np.abs(expected.numpy() - np.array(place.logp)).max() < 1e-9


def test_lockstep_gives_the_same_bits_whatever_the_timing(thread: Executor) -> None:
    model = policy(torch.float32)
    first = play(sampler_of(model, thread))
    assert all(same(first, play(sampler_of(model, thread), timing)) for timing in range(4))
    assert not same(first, play(sampler_of(model, thread), temperature=0.9))


def test_lockstep_does_not_depend_on_what_the_sampler_did_before(thread: Executor) -> None:
    """A resumed run has a new cache, a running one a large cache full of old rows."""
    model = policy(torch.float32)
    sampler = sampler_of(model, thread)

    async def later() -> list[Played]:
        async with sampler.cohort(1) as cohort:
            await cohort.session(0, 5).sample(np.full(300, 9, np.int32), 10)
        await play_with(sampler, temperature=1.3)
        return await play_with(sampler)

    assert same(play(sampler_of(model, thread)), asyncio.run(later()))


def test_free_samples_what_lockstep_samples(model: Any, thread: Executor) -> None:
    lockstep = [played.context for played in play(sampler_of(model, thread))]
    for timing in range(3):
        assert [played.context for played in play(sampler_of(model, thread, "free"), timing)] == lockstep


def test_free_plays_several_cohorts_side_by_side(model: Any, thread: Executor) -> None:
    """Each at a temperature of its own; the third waits until there is room."""
    sampler = sampler_of(model, thread, "free", slots=16)

    async def main() -> tuple[list[Played], ...]:
        return await asyncio.gather(play_with(sampler, 1), play_with(sampler, 2, 0.0), play_with(sampler, 3))

    first, greedy, third = asyncio.run(main())
    assert [p.context for p in first] == [p.context for p in third]
    assert [p.context for p in greedy] == [p.context for p in play(sampler_of(model, thread), temperature=0.0)]


@both
def test_temperature_zero_takes_the_likeliest(model: Any, thread: Executor, mode: str) -> None:
    for played in play(sampler_of(model, thread, mode), temperature=0.0):
        logp = reference(model, played.context)
        for start, sampled in played.turns:
            rows = logp[start - 1 : start - 1 + len(sampled.ids)]
            assert rows.argmax(dim=1).tolist() == sampled.ids.tolist()
            assert np.allclose(rows.amax(dim=1).numpy(), sampled.logp, atol=5e-7, rtol=0)


@both
def test_a_session_that_closes_or_is_cancelled_holds_nobody_up(model: Any, thread: Executor, mode: Any) -> None:
    async def main() -> None:
        sampler = TorchSampler(model, ENDLESS, SamplerSettings(mode=mode), thread)
        async with sampler.cohort(4) as cohort:
            sessions = [cohort.session(i, i) for i in range(4)]
            waiting = asyncio.create_task(sessions[0].sample(PROMPT, 400))
            cancelled = asyncio.create_task(sessions[1].sample(PROMPT, 400))
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
        async with TorchSampler(model, ENDLESS, SamplerSettings(mode="free"), thread).cohort(2) as cohort:
            first = asyncio.create_task(cohort.session(0, 0).sample(PROMPT, 400))
            second = asyncio.create_task(cohort.session(1, 1).sample(PROMPT, 200))
            await asyncio.wait_for(fifth.wait(), 60)
            first.cancel()
            assert len((await asyncio.wait_for(second, 60)).ids) == 200

    asyncio.run(main())
    assert widths[:5] == [1, 2, 2, 2, 2]  # the prompt that they share is computed once
    assert len(widths) == 200
    assert widths[-1] == 1


def test_a_model_that_keeps_its_memory_elsewhere_is_refused(thread: Executor) -> None:
    model = policy()
    forward = model.forward
    model.forward = lambda past_key_values, **kwargs: forward(**kwargs)
    with pytest.raises(PolicyError, match="qwen3 cached 0 of 2 layers; only models with full attention"):
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
            with pytest.raises(PolicyError, match=r"do not fit its window of 512; lower siblings\.limits\.tokens"):
                await session.sample(PROMPT, WINDOW - 2)
            assert len((await session.sample(PROMPT, 1)).ids) == 1

    asyncio.run(main())


def test_models_without_full_attention_are_refused(thread: Executor) -> None:
    model: Any = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16))
    with pytest.raises(PolicyError, match=r"mistral has layers of sliding_attention; only models with full attention"):
        sampler_of(model, thread)


def test_the_model_is_left_in_the_mode_it_was_in(thread: Executor) -> None:
    model = policy().train()
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    trained = play(sampler_of(model, thread))
    assert model.training
    assert same(trained, play(sampler_of(policy(), thread)))
