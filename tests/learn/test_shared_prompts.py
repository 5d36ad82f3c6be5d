"""What new prompts have in common is fed once: the numbers are those of plain passes, and few tokens are read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.families import family
from helpers.ragged_conversations import END, policy, reference
from sgcd.learn.sampling.engine import Engine
from sgcd.learn.sampling.sample_tokens import UniformStream
from sgcd.learn.sampling.sequence_state import SequenceState
from sgcd.learn.sampling.shared_prompts import MIN_SHARED_TOKENS, count_common_tokens, find_donor, find_leaders

SYSTEM = np.random.default_rng(1).integers(3, 60, MIN_SHARED_TOKENS + 20).tolist()
ids = st.lists(st.integers(0, 2), min_size=1, max_size=8)


@contextmanager
def counted_tokens(model: Any) -> Iterator[list[int]]:
    """Tokens of each forward pass, padding included."""
    counts: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, given: counts.append(given["input_ids"].numel()), with_kwargs=True
    )
    yield counts
    hook.remove()


def start(engine: Engine, prompts: Sequence[list[int]], first_index: int = 0) -> list[SequenceState]:
    sequences = [
        SequenceState(index, 1.0, UniformStream(index)) for index in range(first_index, len(prompts) + first_index)
    ]
    for sequence, prompt in zip(sequences, prompts, strict=True):
        sequence.start_turn(np.array(prompt, np.int32), 3)
    return sequences


def check_against_plain(
    model: Any, prompts: Sequence[list[int]], sequences: Sequence[SequenceState], within: float
) -> None:
    for prompt, sequence in zip(prompts, sequences, strict=True):
        rows = reference(model, [*prompt, *sequence.sampled_ids])[len(prompt) - 1 : -1]
        expected = rows.gather(1, torch.tensor(sequence.sampled_ids)[:, None])[:, 0]
        assert np.abs(expected.numpy() - np.array(sequence.logprobs)).max() < within


def test_prompts_of_two_tasks_are_read_as_their_beginning_and_two_ends() -> None:
    model, prompts = policy(), [[*SYSTEM, 5, 6], [*SYSTEM, 5, 6], [*SYSTEM, 9], [*SYSTEM, 9]]
    engine = Engine(model, 4, (END,), top_p=1.0)
    sequences = start(engine, prompts)
    with counted_tokens(model) as counts:
        engine.sample_turn(sequences)
    assert counts[:2] == [len(SYSTEM), 2 * 2]  # one row, then two rows as wide as the longer end
    check_against_plain(model, prompts, sequences, 1e-9)


def test_a_sibling_that_comes_later_reads_one_token() -> None:
    model, prompt = policy(), [*SYSTEM, 5, 6]
    engine = Engine(model, 3, (END,), top_p=1.0)
    first = start(engine, [prompt])
    engine.step(first, ())
    later = start(engine, [prompt, [*SYSTEM[:-1], 4]], 1)
    with counted_tokens(model) as counts:
        engine.step(later, ())
    assert counts[1:] == [2 * 1]  # after a token of the first
    while engine.num_active:
        engine.step((), ())
    check_against_plain(model, [prompt, prompt, [*SYSTEM[:-1], 4]], [*first, *later], 1e-9)


def test_short_beginnings_are_read_by_each() -> None:
    model, prompts = policy(), [[7, 5, 6], [7, 5, 9, 8]]
    engine = Engine(model, 2, (END,), top_p=1.0)
    with counted_tokens(model) as counts:
        engine.sample_turn(start(engine, prompts))
    assert counts[0] == 2 * 4


@pytest.mark.slow
def test_states_of_linear_attention_are_carried_on() -> None:
    model, prompts = family("qwen3.5"), [[*SYSTEM, 5, 6], [*SYSTEM, 9], [*SYSTEM, 9]]
    engine = Engine(model, 3, (END,), top_p=1.0)
    sequences = start(engine, prompts)
    with counted_tokens(model) as counts:
        engine.sample_turn(sequences)
    assert counts[:3] == [len(SYSTEM), 1, 2]
    check_against_plain(model, prompts, sequences, 1e-4)


@settings(deadline=None)
@given(st.lists(ids, min_size=1, max_size=4))
def test_common_tokens_are_those_of_all_and_leave_one_of_each(prompts: list[list[int]]) -> None:
    count = count_common_tokens(prompts)
    assert all(prompt[:count] == prompts[0][:count] for prompt in prompts)
    assert count < min(map(len, prompts))
    longer = [prompt[: count + 1] for prompt in prompts]
    assert count == min(map(len, prompts)) - 1 or any(one != longer[0] for one in longer)


@settings(max_examples=50, deadline=None)
@given(st.lists(ids, min_size=1, max_size=5))
def test_a_leader_is_the_first_with_its_prompt(prompts: list[list[int]]) -> None:
    sequences = start(None, prompts)  # pyright: ignore[reportArgumentType]
    leaders = find_leaders(sequences)
    for sequence, prompt in zip(sequences, prompts, strict=True):
        assert leaders[sequence].index == prompts.index(prompt)


def test_a_donor_is_the_one_that_begins_most_alike() -> None:
    [new, *others] = start(None, [SYSTEM, [4, *SYSTEM], [*SYSTEM[:-9], 4], [*SYSTEM[:-5], 4]])  # pyright: ignore[reportArgumentType]
    assert find_donor(new, others) is None  # nothing is cached
    for other in others:
        other.num_cached = len(other.pending_ids)
    assert find_donor(new, others[:1]) is None
    found = find_donor(new, others)
    assert found is not None
    assert (found[0].index, found[1]) == (3, len(SYSTEM) - 5)
    others[2].num_cached = len(SYSTEM) - 12
    assert find_donor(new, others) == (others[1], len(SYSTEM) - 9)
