"""References in the lab: all of their words are known, and no verdict's facts are in them."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from helpers.group import LAB, run
from sgcd.contrast.insert import encode_reference
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import build_reference
from sgcd.contrast.trace import build_traces
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.lab.demonstrate import (
    NOISY,
    Demonstration,
    Script,
    encode_demonstration,
    play_script,
    trace_demonstrations,
)
from sgcd.lab.tasks import generate_tasks
from sgcd.lab.warm_starts import contrast_demonstrations
from sgcd.records import Group, Rollout, Verdict


def played_groups(num_tasks: int) -> Iterator[list[Demonstration]]:
    rng = np.random.Generator(np.random.Philox(key=3))
    for task in generate_tasks("train")[:num_tasks]:
        yield [asyncio.run(play_script(task, Script(task, NOISY, rng))) for _ in range(8)]


def rollouts_of(played: list[Demonstration]) -> tuple[Rollout, ...]:
    return tuple(replace(encode_demonstration(one, LAB), sibling=at) for at, one in enumerate(played))


def test_every_word_of_a_lab_reference_is_known_in_the_lab() -> None:
    unknown = LAB.tokenizer.unk_token_id
    texts = [text for played in played_groups(60) if (text := contrast_demonstrations(played))]
    assert len(texts) > 40
    assert any("in the final answer" in text for text in texts)
    for text in texts:
        assert unknown not in encode_reference(LAB, text), text


def test_a_demonstration_has_the_steps_of_the_rollout_that_it_is_encoded_to() -> None:
    for played in played_groups(6):
        traces = build_traces(rollouts_of(played), Literals.from_texts(played[0].private), LAB)
        assert [one.steps for one in trace_demonstrations(played)] == [one.steps for one in traces]


def test_other_gold_same_text() -> None:
    """Property 28. The verifier's facts, the reward and the task's row are nowhere in what the writer is given."""
    played = next(one for one in played_groups(6) if contrast_demonstrations(one))
    first = Group(played[0].task, rollouts_of(played))
    rollouts = tuple(
        replace(one, verdict=Verdict(0.7 if one.success else -3.0, one.success, {"gold": "get_flight", "yes": True}))
        for one in first.rollouts
    )
    other = Group(replace(first.task, row={"gold": "send_voucher", "rows": [1]}), rollouts)
    texts = [run(build_reference(group, LAB, BuiltInWriter(), budget=10**6)).reference.text for group in (first, other)]
    assert texts[0] == texts[1]
