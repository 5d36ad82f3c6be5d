"""Pairs of siblings behind the two references that part them, and a start that learns from them."""

import asyncio
from dataclasses import replace

import numpy as np

from environments.scripts import SCRIPTS
from helpers.chats import chat
from helpers.group import rollout
from helpers.played_class import play
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.learn.supervised.pairs import ReadingPairs, build_pairs
from sgcd.records import Group

CHAT = chat("plain")
SCRIPT = SCRIPTS["a wrong argument"]


def scripted_group() -> Group:
    """Two successes and a failure, with a prompt and some tokens."""
    played = play(SCRIPT.cls, SCRIPT.row, SCRIPT.attempts)
    opened = CHAT.encode_prompt([{"role": "user", "content": "Take 41207 bolts."}], ())
    return replace(
        played,
        rollouts=tuple(
            replace(one, prompt=opened.token_ids, reference_position=opened.reference_position)
            for one in played.rollouts
        ),
    )


def pairs_of(*groups: Group, window: int = 2000) -> ReadingPairs:
    builder = ReferenceBuilder(BuiltInWriter(names_failures=True), CHAT, budget=10**6, min_tokens=8)
    return asyncio.run(build_pairs(groups, builder, window))


def test_a_success_reads_the_own_reference_and_a_failure_the_exchanged_one() -> None:
    group = scripted_group()
    found = pairs_of(group)
    [(success, failure)] = found.pairs
    assert (success.sibling, failure.sibling) == (0, 1)
    for one, text in ((success, SCRIPT.both_sides), (failure, SCRIPT.exchanged)):
        shown = CHAT.decode(one.prompt)
        assert text.split("\n")[2] in shown
        assert "Take 41207 bolts." in shown
        assert np.array_equal(one.response, group.rollouts[one.sibling].response)


def test_a_group_gives_as_many_pairs_as_its_smaller_side_has_and_says_why_one_gives_none() -> None:
    group = scripted_group()
    right, wrong, also_right = group.rollouts
    two = replace(group, rollouts=(right, wrong, also_right, replace(wrong, sibling=3)))
    same = Group(group.task, (right, also_right))
    unparted = Group(group.task, (rollout(["fine"]), rollout(["fine"], success=False, sibling=1)))
    found = pairs_of(two, same, unparted)
    assert [(a.sibling, b.sibling) for a, b in found.pairs] == [(0, 1), (2, 3)]
    assert (found.num_groups, found.left_out) == (1, {"nothing parts them": 1})
    assert pairs_of(group, window=60).left_out == {"longer than 60 tokens": 1}
