import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import CHAT, TASK, ScriptedEnvironment, ScriptedSampler, stage_of, tool

from sgcd.act.environment import Opening, Reply
from sgcd.act.order import Cursor, Order
from sgcd.act.rollout import seed_of
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.act.siblings import Gathered, Play, Played, gather, play_cohort, play_groups
from sgcd.records import Rollout, Said, Siblings, Task, Verdict


def rollout(task: str, sibling: int, success: bool | None) -> Rollout:
    """None is a broken one."""
    return Rollout(
        task=task,
        category="action",
        sibling=sibling,
        seed=0,
        prompt=np.zeros(0, np.int32),
        insert_at=0,
        response=np.zeros(0, np.int32),
        mask=np.zeros(0, np.bool_),
        kinds=np.zeros(0, np.uint8),
        sampled_logp=np.zeros(0, np.float32),
        turns=(),
        messages=(),
        tools=(),
        ending="broken" if success is None else "answered",
        verdict=None if success is None else Verdict(float(success), success),
        broken="reply: gone" if success is None else "",
    )


def group(task: Task, outcomes: Sequence[bool | None]) -> Siblings:
    rollouts = [rollout(task.id, i, outcome) for i, outcome in enumerate(outcomes)]
    return Siblings(task, tuple(r for r in rollouts if not r.broken), tuple(r for r in rollouts if r.broken))


MIXED, AGREE, ALONE = (True, False, None), (True, True), (True, None, None)


def tasks_of(number: int) -> list[Task]:
    return [Task(f"t{i}", "action", {}) for i in range(number)]


class Script:
    """Groups whose outcomes follow from the task's place in the sequence; remembers what each round asked for."""

    def __init__(self, tasks: Sequence[Task], outcomes: Sequence[Sequence[bool | None]], together: int = 100):
        order = Order(tasks, seed=7)
        self.outcome = {order[place].id: outcome for place, outcome in enumerate(outcomes)}
        self.together = together
        self.rounds: list[int] = []
        self.played: list[str] = []

    async def __call__(self, tasks: Sequence[Task]) -> Played:
        self.rounds.append(len(tasks))
        for start in range(0, len(tasks), self.together):
            some = tasks[start : start + self.together]
            self.played += [task.id for task in some]
            yield tuple(group(task, self.outcome[task.id]) for task in some)


def step(tasks: list[Task], script: Script, cursor: Cursor = Cursor(), groups: int = 2, rounds: int = 10) -> Gathered:  # noqa: B008
    return asyncio.run(gather(tasks, cursor, SiblingsSettings(groups=groups, rounds=rounds), 7, script))


def places(tasks: list[Task], groups: Sequence[Siblings]) -> list[int]:
    order = Order(tasks, seed=7)
    where = {order[place].id: place for place in range(len(tasks))}
    return [where[group.task.id] for group in groups]


def test_without_experience_no_more_is_played_than_is_needed():
    tasks = tasks_of(9)
    script = Script(tasks, [MIXED] * 9)
    gathered = step(tasks, script, groups=3)
    assert script.rounds == [3]
    assert places(tasks, gathered.kept) == [0, 1, 2]
    assert gathered.cursor == Cursor(position=3, groups=3, mixed=3)
    assert gathered.rollouts_played == 9


def test_a_round_looks_ahead_by_the_share_of_mixed_groups_so_far():
    tasks = tasks_of(20)
    # one in two is mixed: the first round tries 2 (share 1) and finds one; then the share is (1 + 1) / (2 + 1)
    script = Script(tasks, [MIXED, AGREE] * 10)
    gathered = step(tasks, script)
    assert script.rounds == [2, 2]  # ceil(1 / (2 / 3))
    assert places(tasks, gathered.kept) == [0, 2]
    assert gathered.cursor == Cursor(position=3, groups=4, mixed=2)  # after the last kept: 3 is tried again
    script = Script(tasks, [MIXED, AGREE] * 10)
    gathered = step(tasks, script, gathered.cursor)
    assert script.rounds == [4]  # ceil(2 / (3 / 5))
    assert places(tasks, gathered.kept) == [4, 6]
    assert gathered.cursor == Cursor(position=7, groups=8, mixed=4)


def test_the_first_mixed_groups_are_kept_and_surplus_tasks_return_next():
    tasks = tasks_of(20)
    script = Script(tasks, [AGREE, MIXED, MIXED, AGREE, MIXED, MIXED, *[AGREE] * 14])
    gathered = step(tasks, script, Cursor(groups=2, mixed=0))  # share 1/3: six at once
    assert script.rounds == [6]
    assert places(tasks, gathered.kept) == [1, 2]
    assert places(tasks, gathered.surplus) == [4, 5]
    assert places(tasks, gathered.uniform) == [0, 3]
    assert gathered.cursor == Cursor(position=3, groups=8, mixed=4)
    again = Script(tasks, [AGREE] * 20)
    step(tasks, again, gathered.cursor)
    assert again.played[:3] == [Order(tasks, seed=7)[place].id for place in (3, 4, 5)]


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
    gathered = step(tasks, script, Cursor(groups=99, mixed=0), rounds=3)
    assert sum(script.rounds) == 6  # 2 groups, 3 rounds
    assert gathered.kept == ()
    assert gathered.rounds == len(script.rounds)


def test_no_task_comes_twice_in_a_step_and_a_small_pool_ends_it():
    tasks = tasks_of(3)
    script = Script(tasks, [AGREE, MIXED, AGREE])
    gathered = step(tasks, script, Cursor(position=2))  # the last of this epoch, then two of the next
    assert sorted(script.played) == ["t0", "t1", "t2"]
    assert [group.task.id for group in gathered.kept] == [Order(tasks, seed=7)[1].id]


def test_broken_rollouts_are_dropped_and_two_must_be_left():
    tasks = tasks_of(4)
    script = Script(tasks, [ALONE, (False, None, True), (None, None, None), MIXED])
    gathered = step(tasks, script)
    assert places(tasks, gathered.kept) == [1, 3]
    assert all(not r.broken for kept in gathered.kept for r in kept.rollouts)
    assert [len(kept.broken) for kept in gathered.kept] == [1, 1]
    assert gathered.rollouts_played == 12


def test_the_rest_of_a_round_is_not_played_once_the_step_is_full():
    tasks = tasks_of(20)
    whole, early = Script(tasks, [MIXED] * 20), Script(tasks, [MIXED] * 20, together=2)
    cursor = Cursor(groups=9, mixed=1)  # share 1/5: ten at once
    wide, narrow = step(tasks, whole, cursor), step(tasks, early, cursor)
    assert (len(whole.played), len(early.played)) == (10, 2)
    assert places(tasks, wide.kept) == places(tasks, narrow.kept) == [0, 1]
    assert wide.cursor.position == narrow.cursor.position == 2


OUTCOMES = st.lists(st.sampled_from([MIXED, AGREE, AGREE, ALONE]), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(OUTCOMES, st.integers(1, 5), st.integers(1, 4), st.integers(1, 7))
def test_steps_keep_only_mixed_groups_never_more_than_asked_and_miss_none(
    outcomes: list[tuple[bool | None, ...]], groups: int, rounds: int, together: int
):
    tasks, cursor = tasks_of(len(outcomes)), Cursor()
    done: list[int] = []
    for _ in range(6):
        script = Script(tasks, outcomes, together)
        gathered = step(tasks, script, cursor, groups, rounds)
        assert len(gathered.kept) <= groups
        assert all(kept.mixed and len(kept.rollouts) >= 2 for kept in gathered.kept)
        assert not any(uniform.mixed for uniform in gathered.uniform)
        assert not gathered.surplus or len(gathered.kept) == groups
        played = [group.task.id for group in (*gathered.kept, *gathered.surplus, *gathered.uniform)]
        assert sorted(played) == sorted(script.played)
        assert len(set(played)) == len(played) <= groups * rounds
        assert gathered.cursor.groups == cursor.groups + len(played)
        assert gathered.cursor.mixed == cursor.mixed + len(gathered.kept) + len(gathered.surplus)
        before = set(range(cursor.position)) - set(cursor.waiting)
        after = set(range(gathered.cursor.position)) - set(gathered.cursor.waiting)
        assert before <= after  # nothing that was done with comes again, and a full step is done with no surplus
        finished = [Order(tasks, 7)[place].id for place in sorted(after - before)]
        assert {kept.task.id for kept in gathered.kept} <= set(finished) <= set(played)
        assert not {surplus.task.id for surplus in gathered.surplus} & set(finished)
        done += sorted(after - before)
        cursor = gathered.cursor
    assert len(set(done)) == len(done)


# -- what is played, with scripted tokens ---------------------------------------------------------------------------


class Guess(ScriptedEnvironment):
    """Won by the word kind, after as many looks as the policy likes; some of them break it."""

    def __init__(self):
        super().__init__()
        self.delays = random.Random()

    async def reply(self, said: Said) -> Reply:
        await asyncio.sleep(self.delays.random() / 1000)
        if said.calls:
            if said.calls[0].arguments.get("name") == "grab":
                raise OSError("gone")
            return tool("found b12")
        self.verdict = Verdict(float(said.text == "kind"), said.text == "kind")
        return Reply(done=True)


def words(seed: int) -> list[str]:
    """What the policy says, from the seed alone: tasks differ in how often they are won."""
    draws = random.Random(seed)
    looks = [f"<call> look name {draws.choice(['mia', 'b12', 'grab'])} </call>"] if draws.random() < 0.3 else []
    return [*looks, draws.choice(["kind", "be", "be"])]


def signature(gathered: Gathered) -> list[tuple[str, list[tuple[int, list[int], bool, str]]]]:
    return [
        (
            group.task.id,
            [(r.sibling, r.response.tolist(), r.success, r.broken) for r in (*group.rollouts, *group.broken)],
        )
        for group in (*gathered.kept, *gathered.surplus, *gathered.uniform)
    ]


def run_steps(delays: int, slots: int) -> tuple[list[object], list[list[str]]]:
    tasks, cursor, seen, kept = tasks_of(10), Cursor(), list[object](), list[list[str]]()
    for number in range(3):
        sampler = ScriptedSampler(words, slots, random.Random(delays))

        async def play_them(some: Sequence[Task], sampler: ScriptedSampler = sampler, number: int = number) -> Played:
            async for groups in play_groups(some, 4, stage_of(Guess), CHAT, sampler.as_sampler(), Limits(), 5, number):
                yield groups

        gathered = asyncio.run(gather(tasks, cursor, SiblingsSettings(groups=2, size=4), 5, play_them))
        cursor = gathered.cursor
        seen += [signature(gathered), cursor]
        kept.append([group.task.id for group in gathered.kept])
        assert all(session.closed == 1 for session in sampler.sessions)
        assert len(sampler.sessions) == gathered.rollouts_played
    return seen, kept


def test_same_seed_same_groups_whatever_the_order_of_completion():
    runs = [run_steps(delays, slots=8)[0] for delays in range(6)]
    assert all(run == runs[0] for run in runs)
    assert "OSError" in str(runs[0])  # some were broken on the way
    assert [kept for kept in run_steps(0, slots=8)[1] if kept]


def test_how_many_are_sampled_together_does_not_change_what_is_kept():
    assert run_steps(0, slots=8)[1] == run_steps(1, slots=16)[1] == run_steps(2, slots=3)[1]


@pytest.mark.parametrize(
    ("slots", "sizes"), [(8, [8, 4]), (4, [4, 4, 4]), (11, [8, 4]), (3, [3, 1, 3, 1, 3, 1]), (99, [12])]
)
async def test_cohorts_are_whole_groups_wherever_a_group_fits(slots: int, sizes: list[int]):
    sampler = ScriptedSampler(words, slots)
    seen = play_groups(tasks_of(3), 4, stage_of(Guess), CHAT, sampler.as_sampler(), Limits(), 5, 0)
    groups = [group async for some in seen for group in some]
    assert sampler.sizes == sizes
    assert [group.task.id for group in groups] == ["t0", "t1", "t2"]
    for played in groups:
        siblings = sorted((*played.rollouts, *played.broken), key=lambda r: r.sibling)
        assert [(r.sibling, r.seed) for r in siblings] == [(i, seed_of(5, 0, played.task.id, i)) for i in range(4)]


async def test_a_broken_rollout_does_not_disturb_its_siblings():
    made: list[ScriptedEnvironment] = []

    def make() -> ScriptedEnvironment:
        trouble = [OSError("gone"), None, SystemExit(1), asyncio.CancelledError()]
        made.append(ScriptedEnvironment(*([trouble[len(made)]] if len(made) < 4 else [tool("found")])))
        return made[-1]

    sampler = ScriptedSampler(lambda seed: ["<call> look </call>", "kind"])
    plays = [Play(TASK, i, i) for i in range(6)]
    rollouts = await play_cohort(plays, stage_of(make), CHAT, sampler.as_sampler(), Limits(seconds=0.05))
    assert [bool(r.broken) for r in rollouts] == [True] * 4 + [False] * 2
    assert [r.success for r in rollouts] == [False] * 4 + [True] * 2
    assert all(session.closed == 1 for session in sampler.sessions)
    assert all(environment.closed == 1 for environment in made)


async def test_when_the_sampler_fails_nothing_is_left_running():
    made: list[ScriptedEnvironment] = []

    def make() -> ScriptedEnvironment:
        made.append(ScriptedEnvironment(*([None] if made else [])))  # all but the first hang
        return made[-1]

    sampler = ScriptedSampler(lambda seed: ["<call> look </call>"] if seed else [], failure=MemoryError("no room"))
    before = asyncio.all_tasks()
    plays = [Play(TASK, i, i) for i in range(3)]
    with pytest.raises(MemoryError):
        await asyncio.wait_for(play_cohort(plays, stage_of(make), CHAT, sampler.as_sampler(), Limits(seconds=30)), 2)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert all(session.closed == 1 for session in sampler.sessions)
    assert all(environment.closed == 1 for environment in made)


def test_an_opening_may_differ_from_task_to_task():
    """The prompt is the task's own: siblings share it, tasks do not."""

    class Named(ScriptedEnvironment):
        async def open(self, task: Task, seed: int) -> Opening:
            return Opening(({"role": "user", "content": task.id},), (), harness=0)

    sampler = ScriptedSampler(lambda seed: ["kind"], slots=8)

    async def prompts() -> list[list[int]]:
        played = play_groups(tasks_of(2), 2, stage_of(Named), CHAT, sampler.as_sampler(), Limits(), 0, 0)
        return [r.prompt.tolist() for some in [g async for g in played] for group in some for r in group.rollouts]

    first, second, third, fourth = asyncio.run(prompts())
    assert first == second != third == fourth
