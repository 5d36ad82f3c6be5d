"""Shared by the sampler's tests: a tiny policy, ragged conversations, and a cohort that plays them."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sgcd.act.environment import SampledTurn
from sgcd.learn.sampling.sampler import TorchCohort, TorchSampler
from sgcd.learn.settings import SamplerSettings

END, VOCABULARY, WINDOW = 2, 60, 512
CHAT: Any = SimpleNamespace(end_id=END, end_ids=(END,))
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
ENDLESS: Any = SimpleNamespace(end_id=-1, end_ids=(-1,))
both = pytest.mark.parametrize("mode", ["lockstep", "continuous"])


def policy(dtype: torch.dtype = torch.float64, architecture: str = "qwen3") -> Any:
    torch.manual_seed(11)
    qwen = architecture == "qwen3"
    model: Any = Qwen3ForCausalLM(Qwen3Config(**SHAPE)) if qwen else LlamaForCausalLM(LlamaConfig(**SHAPE))
    return model.to(dtype).eval()


def sampler_of(model: Any, thread: Executor, mode: Any = "lockstep", slots: int = 8, **settings: Any) -> TorchSampler:
    return TorchSampler(model, CHAT, SamplerSettings(mode=mode, slots=slots, **settings), thread)


@dataclass
class Played:
    """The context of one rollout, and for each of its turns the start and the returned sample."""

    context: list[int]
    turns: list[tuple[int, SampledTurn]]


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
        played.context += sampled.token_ids.tolist()
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
        np.array_equal(s.logprobs, t.logprobs)
        for p, q in zip(a, b, strict=True)
        for (_, s), (_, t) in zip(p.turns, q.turns, strict=True)
    )


def reference(model: Any, context: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-softmax after every token of the context, from one plain forward pass."""
    with torch.inference_mode():
        return torch.log_softmax(model(input_ids=torch.tensor([context])).logits[0].double() / temperature, dim=-1)
