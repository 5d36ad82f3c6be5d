import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scripted_play import CHAT, stage_of, tasks_of
from sgcd.act.environment import Sampler
from sgcd.act.settings import SiblingsSettings
from sgcd.act.siblings import CollectedGroups, PlayContext, collect_mixed_groups
from sgcd.act.task_order import TaskCursor, TaskOrder
from sgcd.records import Group, Rollout, Task, Verdict


def rollout(task: str, sibling: int, reward: float | None) -> Rollout:
    """None is a broken one."""
    return Rollout(
        task=task,
        category="action",
        sibling=sibling,
        seed=0,
        prompt=np.zeros(0, np.int32),
        reference_position=0,
        response=np.zeros(0, np.int32),
        response_mask=np.zeros(0, np.bool_),
        token_kinds=np.zeros(0, np.uint8),
        sampling_logprobs=np.zeros(0, np.float32),
        turns=(),
        messages=(),
        tools=(),
        end_reason="broken" if reward is None else "answered",
        verdict=None if reward is None else Verdict(float(reward), reward >= 1),
        broken="reply: gone" if reward is None else "",
    )


def group(task: Task, outcomes: Sequence[float | None]) -> Group:
    rollouts = [rollout(task.id, i, outcome) for i, outcome in enumerate(outcomes)]
    return Group(task, tuple(r for r in rollouts if not r.broken), tuple(r for r in rollouts if r.broken))


MIXED, AGREE, ALONE = (True, False, None), (True, True), (True, None, None)


class Script:
    """Groups whose outcomes follow from the task's place in the sequence; remembers what each round asked for."""

    def __init__(self, tasks: Sequence[Task], outcomes: Sequence[Sequence[float | None]], together: int = 100):
        order = TaskOrder(tasks, seed=7)
        self.outcome = {order[place].id: outcome for place, outcome in enumerate(outcomes)}
        self.together = together
        self.rounds: list[int] = []
        self.played: list[str] = []
        self.mixed_groups: list[Group] = []

    async def play_groups(
        self, tasks: Sequence[Task], context: object, *, on_group_done: Callable[[Group], None], **settings: object
    ) -> list[Group]:
        self.rounds.append(len(tasks))  # a round is one call, unless `together` cuts it
        self.played += [task.id for task in tasks]
        groups = [group(task, self.outcome[task.id]) for task in tasks]
        for each in groups:
            on_group_done(each)
        return groups


START = TaskCursor()


def step(
    tasks: list[Task],
    script: Script,
    cursor: TaskCursor = START,
    groups: int = 2,
    rounds: int = 10,
    min_reward_gap: float = 0.0,
) -> CollectedGroups:
    config = SiblingsSettings(groups=groups, rounds=rounds, min_reward_gap=min_reward_gap)
    sampler = cast(Sampler, SimpleNamespace(slots=script.together * config.group_size))
    context = PlayContext(task_suite=stage_of(object, tasks), chat=CHAT, sampler=sampler, limits=config.limits)
    with patch("sgcd.act.siblings.play_groups", script.play_groups):
        collecting = collect_mixed_groups(
            cursor, config, context, seed=7, step=0, on_mixed_group=script.mixed_groups.append
        )
        return asyncio.run(collecting)


def places(tasks: list[Task], groups: Sequence[Group]) -> list[int]:
    order = TaskOrder(tasks, seed=7)
    where = {order[place].id: place for place in range(len(tasks))}
    return [where[group.task.id] for group in groups]


def test_without_experience_no_more_is_played_than_is_needed():
    tasks = tasks_of(9)
    script = Script(tasks, [MIXED] * 9)
    gathered = step(tasks, script, groups=3)
    assert script.rounds == [3]
    assert places(tasks, gathered.kept) == [0, 1, 2]
    assert gathered.cursor == TaskCursor(position=3, num_groups=3, num_mixed=3)
    assert gathered.num_rollouts == 9


def test_a_round_looks_ahead_by_the_share_of_mixed_groups_so_far():
    tasks = tasks_of(20)
    # one in two is mixed: the first round tries 2 (share 1) and finds one; then the share is (1 + 1) / (2 + 1)
    script = Script(tasks, [MIXED, AGREE] * 10)
    gathered = step(tasks, script)
    assert script.rounds == [2, 2]  # ceil(1 / (2 / 3))
    assert places(tasks, gathered.kept) == [0, 2]
    assert gathered.cursor == TaskCursor(position=3, num_groups=4, num_mixed=2)  # after the last kept: 3 is tried again
    script = Script(tasks, [MIXED, AGREE] * 10)
    gathered = step(tasks, script, gathered.cursor)
    assert script.rounds == [4]  # ceil(2 / (3 / 5))
    assert places(tasks, gathered.kept) == [4, 6]
    assert gathered.cursor == TaskCursor(position=7, num_groups=8, num_mixed=4)


def test_the_first_mixed_groups_are_kept_and_surplus_tasks_return_next():
    tasks = tasks_of(20)
    script = Script(tasks, [AGREE, MIXED, MIXED, AGREE, MIXED, MIXED, *[AGREE] * 14])
    gathered = step(tasks, script, TaskCursor(num_groups=2, num_mixed=0))  # share 1/3: six at once
    assert script.rounds == [6]
    assert places(tasks, gathered.kept) == [1, 2]
    assert places(tasks, gathered.extra) == [4, 5]
    assert places(tasks, gathered.same_outcome) == [0, 3]
    assert gathered.cursor == TaskCursor(position=3, num_groups=8, num_mixed=4)
    again = Script(tasks, [AGREE] * 20)
    step(tasks, again, gathered.cursor)
    assert again.played[:3] == [TaskOrder(tasks, seed=7)[place].id for place in (3, 4, 5)]


def test_a_step_that_is_not_full_leaves_the_cursor_after_the_last_tried():
    tasks = tasks_of(30)
    script = Script(tasks, [AGREE, MIXED, *[AGREE] * 28])
    gathered = step(tasks, script, rounds=2)
    assert script.rounds == [2, 2]  # two needed: 2 tried; one needed, share 2/3: two tried
    assert places(tasks, gathered.kept) == [1]
    assert gathered.cursor.position == 4
    assert gathered.rounds == 2


def test_looking_ahead_never_plays_more_than_the_rounds_without_it_could():
    tasks = tasks_of(200)
    script = Script(tasks, [AGREE] * 200)
    gathered = step(tasks, script, TaskCursor(num_groups=99, num_mixed=0), rounds=3)
    assert sum(script.rounds) == 6  # 2 groups, 3 rounds
    assert gathered.kept == ()
    assert gathered.rounds == len(script.rounds)


def test_no_task_comes_twice_in_a_step_and_a_small_pool_ends_it():
    tasks = tasks_of(3)
    script = Script(tasks, [AGREE, MIXED, AGREE])
    gathered = step(tasks, script, TaskCursor(position=2))  # the last of this epoch, then two of the next
    assert sorted(script.played) == ["t0", "t1", "t2"]
    assert [group.task.id for group in gathered.kept] == [TaskOrder(tasks, seed=7)[1].id]


def test_broken_rollouts_are_dropped_and_two_must_be_left():
    tasks = tasks_of(4)
    script = Script(tasks, [ALONE, (False, None, True), (None, None, None), MIXED])
    gathered = step(tasks, script)
    assert places(tasks, gathered.kept) == [1, 3]
    assert all(not r.broken for kept in gathered.kept for r in kept.rollouts)
    assert [len(kept.broken) for kept in gathered.kept] == [1, 1]
    assert gathered.num_rollouts == 12


def test_the_rest_of_a_round_is_not_played_once_the_step_is_full():
    tasks = tasks_of(20)
    whole, early = Script(tasks, [MIXED] * 20), Script(tasks, [MIXED] * 20, together=2)
    cursor = TaskCursor(num_groups=9, num_mixed=1)  # share 1/5: ten at once
    wide, narrow = step(tasks, whole, cursor), step(tasks, early, cursor)
    assert (len(whole.played), len(early.played)) == (10, 2)
    assert places(tasks, wide.kept) == places(tasks, narrow.kept) == [0, 1]
    assert wide.cursor.position == narrow.cursor.position == 2


OUTCOMES = st.lists(st.sampled_from([MIXED, AGREE, AGREE, ALONE]), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(OUTCOMES, st.integers(1, 5), st.integers(1, 4), st.integers(1, 7))
def test_steps_keep_only_mixed_groups_never_more_than_asked_and_miss_none(
    outcomes: list[tuple[bool | None, ...]], groups: int, rounds: int, together: int
):
    tasks, cursor = tasks_of(len(outcomes)), TaskCursor()
    done: list[int] = []
    for _ in range(6):
        script = Script(tasks, outcomes, together)
        gathered = step(tasks, script, cursor, groups, rounds)
        assert len(gathered.kept) <= groups
        assert all(kept.is_mixed() and len(kept.rollouts) >= 2 for kept in gathered.kept)
        assert not any(uniform.is_mixed() for uniform in gathered.same_outcome)
        assert not gathered.extra or len(gathered.kept) == groups
        played = [group.task.id for group in (*gathered.kept, *gathered.extra, *gathered.same_outcome)]
        assert sorted(played) == sorted(script.played)
        assert len(set(played)) == len(played) <= groups * rounds
        assert gathered.cursor.num_groups == cursor.num_groups + len(played)
        assert gathered.cursor.num_mixed == cursor.num_mixed + len(gathered.kept) + len(gathered.extra)
        before = set(range(cursor.position)) - set(cursor.skipped)
        after = set(range(gathered.cursor.position)) - set(gathered.cursor.skipped)
        assert before <= after  # nothing that was done with comes again, and a full step is done with no surplus
        finished = [TaskOrder(tasks, 7)[place].id for place in sorted(after - before)]
        assert {kept.task.id for kept in gathered.kept} <= set(finished) <= set(played)
        assert not {surplus.task.id for surplus in gathered.extra} & set(finished)
        done += sorted(after - before)
        cursor = gathered.cursor
    assert len(set(done)) == len(done)


@pytest.mark.parametrize(("rewards", "gap", "mixed"), [
    ((0.89, 0.44, 0.44, 0.89), 0.0, True), ((0.89, 0.44), 0.5, False), ((0.5, 0.5), 0.0, False), ((), 0.0, False),
])  # fmt: skip
def test_a_group_is_mixed_when_its_rewards_differ_enough(rewards: tuple[float, ...], gap: float, mixed: bool):
    siblings = [replace(rollout("t", i, 0), verdict=Verdict(reward, False)) for i, reward in enumerate(rewards)]
    assert Group(tasks_of(1)[0], tuple(siblings)).is_mixed(gap) is mixed


def test_a_step_keeps_graded_groups_and_hands_on_no_others():
    tasks = tasks_of(2)
    for gap, num_kept in ((0.0, 2), (0.5, 0)):
        script = Script(tasks, [(0.4, 0.8), (0.5, 0.8)])
        gathered = step(tasks, script, min_reward_gap=gap)
        assert len(script.mixed_groups) == num_kept
        assert (len(gathered.kept), len(gathered.same_outcome)) == (num_kept, 2 - num_kept)
