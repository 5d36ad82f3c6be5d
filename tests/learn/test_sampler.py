"""The sampler against plain forward passes over the whole context, in both ways of sampling."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from helpers.ragged_conversations import (
    END,
    Played,
    both,
    conversation,
    play,
    play_with,
    policy,
    reference,
    same,
    sampler_of,
)
from sgcd.learn.sampling.engine import Engine
from sgcd.learn.sampling.sample_tokens import UniformStream
from sgcd.learn.sampling.sequence_state import SequenceState


@pytest.fixture(scope="module")
def model() -> Any:
    return policy()


@pytest.fixture(scope="module")
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@both
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_logp_and_ids_are_those_of_a_plain_forward(mode: str, architecture: str, thread: Executor) -> None:
    model = policy(architecture=architecture)
    rollouts = play(sampler_of(model, thread, mode), timing=3, temperature=0.7)
    for index, played in enumerate(rollouts):
        uniforms = np.random.Generator(np.random.Philox(1000 + index)).random(200).tolist()
        logp = reference(model, played.context, 0.7)
        for (start, sampled), (_, limit) in zip(played.turns, conversation(index), strict=True):
            for i, token in enumerate(sampled.token_ids.tolist()):
                row = logp[start - 1 + i]
                assert token == int((row.exp().cumsum(0) > uniforms.pop(0)).nonzero()[0])
                assert abs(float(row[token]) - float(sampled.logprobs[i])) < 5e-7
            assert END not in sampled.token_ids[:-1].tolist()
            assert sampled.hit_end_token == (sampled.token_ids[-1] == END)
            assert len(sampled.token_ids) <= limit
            assert sampled.hit_end_token or len(sampled.token_ids) == limit
    assert {sampled.hit_end_token for played in rollouts for _, sampled in played.turns} == {True, False}


def test_the_engine_is_exact(model: Any) -> None:
    """Records keep float32; here the engine's own numbers are compared, over ragged turns and shared prompts."""
    engine = Engine(model, 4, (END,), top_p=1.0)
    places = [SequenceState(i, 1.0, UniformStream(i)) for i in range(4)]
    contexts: list[list[int]] = [[] for _ in places]
    for turn in range(2):
        starts: list[int] = []
        for place, context in zip(places, contexts, strict=True):
            new, _ = conversation(place.index)[min(turn, 3 - place.index % 3)]
            place.start_turn(new, 3 + 5 * place.index)
            context += new.tolist()
            starts.append(len(context))
        engine.sample_turn(places)
        for place, context, start in zip(places, contexts, starts, strict=True):
            context += place.sampled_ids
            rows = reference(model, context)[start - 1 : -1]
            expected = rows.gather(1, torch.tensor(place.sampled_ids)[:, None])[:, 0]
            assert np.abs(expected.numpy() - np.array(place.logprobs)).max() < 1e-9


@pytest.mark.parametrize("mode", ["lockstep", "continuous"])
@pytest.mark.parametrize("lookahead", [1, 5, 64])
def test_looking_ahead_samples_the_same_tokens(model: Any, thread: Executor, mode: str, lookahead: int) -> None:
    """In float64 no rounding moves a token; guesses are kept over ragged turns, limits and ends of turns."""
    plain = play(sampler_of(model, thread, mode))
    ahead = play(sampler_of(model, thread, mode, lookahead=lookahead), timing=1)
    assert [played.context for played in ahead] == [played.context for played in plain]
    for one, other in zip(plain, ahead, strict=True):
        for (_, first), (_, second) in zip(one.turns, other.turns, strict=True):
            assert np.abs(first.logprobs - second.logprobs).max() < 1e-6
            assert first.hit_end_token == second.hit_end_token


def test_looking_ahead_takes_fewer_passes_where_tokens_do_not_depend_on_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all weights zero every token is drawn alike: guesses that were sampled are right."""
    indifferent = policy()
    with torch.no_grad():
        for parameter in indifferent.parameters():
            parameter.zero_()
    widths: list[int] = []
    decode = Engine._decode

    def counted(self: Engine, sequences: Any, width: int) -> Any:
        widths.append(width)
        return decode(self, sequences, width)

    monkeypatch.setattr(Engine, "_decode", counted)
    sampled: list[list[int]] = []
    for lookahead in (0, 7):
        place = SequenceState(0, 1.0, UniformStream(0))
        place.start_turn(np.full(5, 3, np.int32), 40)
        Engine(indifferent, 1, (), top_p=1.0, lookahead=lookahead).sample_turn([place])
        sampled.append(place.sampled_ids)
    assert sampled[0] == sampled[1] and len(sampled[0]) == 40
    assert widths[:39] == [1] * 39 and len(widths[39:]) <= 10


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


@pytest.mark.slow
def test_free_samples_what_lockstep_samples(model: Any, thread: Executor) -> None:
    lockstep = [played.context for played in play(sampler_of(model, thread))]
    for timing in range(3):
        assert [played.context for played in play(sampler_of(model, thread, "continuous"), timing)] == lockstep


def test_free_plays_several_cohorts_side_by_side(model: Any, thread: Executor) -> None:
    """Each at a temperature of its own; the third waits until there is room."""
    sampler = sampler_of(model, thread, "continuous", slots=16)

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
            rows = logp[start - 1 : start - 1 + len(sampled.token_ids)]
            assert rows.argmax(dim=1).tolist() == sampled.token_ids.tolist()
            assert np.allclose(rows.amax(dim=1).numpy(), sampled.logprobs, atol=5e-7, rtol=0)


def test_the_model_is_left_in_the_mode_it_was_in(thread: Executor) -> None:
    model = policy().train()
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    trained = play(sampler_of(model, thread))
    assert model.training
    assert same(trained, play(sampler_of(policy(), thread)))
