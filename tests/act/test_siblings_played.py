import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from helpers.scripted_play import CHAT, TASK, ScriptedEnvironment, ScriptedSampler, stage_of, tasks_of, tool
from sgcd.act.environment import InitialMessages, Reply
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.act.siblings import CollectedGroups, PlayContext, collect_mixed_groups, play_cohort, play_groups
from sgcd.act.task_order import TaskCursor
from sgcd.records import Group, ParsedTurn, Task, Verdict
from sgcd.seeds import derive_seed

LIMITS = Limits()


class Guess(ScriptedEnvironment):
    """Won by the word kind, after as many looks as the policy likes; some of them break it."""

    def __init__(self):
        super().__init__()
        self.delays = random.Random()

    async def reply(self, turn: ParsedTurn) -> Reply:
        await asyncio.sleep(self.delays.random() / 1000)
        if turn.calls:
            if turn.calls[0].arguments.get("name") == "grab":
                raise OSError("gone")
            return tool("found b12")
        self.verdict = Verdict(float(turn.text == "kind"), turn.text == "kind")
        return Reply(done=True)


def context(
    make: Callable[[], ScriptedEnvironment],
    sampler: ScriptedSampler,
    limits: Limits = LIMITS,
    tasks: Sequence[Task] = (TASK,),
) -> PlayContext:
    return PlayContext(task_suite=stage_of(make, tasks), chat=CHAT, sampler=sampler.as_sampler(), limits=limits)


def words(seed: int) -> list[str]:
    """What the policy says, from the seed alone: tasks differ in how often they are won."""
    draws = random.Random(seed)
    looks = [f"<call> look name {draws.choice(['mia', 'b12', 'grab'])} </call>"] if draws.random() < 0.3 else []
    return [*looks, draws.choice(["kind", "be", "be"])]


def signature(gathered: CollectedGroups) -> list[tuple[str, list[tuple[int, list[int], bool, str]]]]:
    return [
        (
            group.task.id,
            [(r.sibling, r.response.tolist(), r.success, r.broken) for r in (*group.rollouts, *group.broken)],
        )
        for group in (*gathered.kept, *gathered.extra, *gathered.same_outcome)
    ]


def run_steps(delays: int, slots: int) -> tuple[list[object], list[list[str]]]:
    tasks, cursor, seen, kept = tasks_of(10), TaskCursor(), list[object](), list[list[str]]()
    for number in range(3):
        sampler = ScriptedSampler(words, slots, random.Random(delays))

        config = SiblingsSettings(groups=2, group_size=4)
        gathered = asyncio.run(
            collect_mixed_groups(cursor, config, context(Guess, sampler, tasks=tasks), seed=5, step=number)
        )
        cursor = gathered.cursor
        seen += [signature(gathered), cursor]
        kept.append([group.task.id for group in gathered.kept])
        assert all(session.closed == 1 for session in sampler.sessions)
        assert len(sampler.sessions) == gathered.num_rollouts
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
    tasks, config = tasks_of(3), SiblingsSettings(groups=3, group_size=4, rounds=1)
    gathered = await collect_mixed_groups(TaskCursor(), config, context(Guess, sampler, tasks=tasks), seed=5, step=0)
    assert sampler.sizes == sizes
    groups = [*gathered.kept, *gathered.extra, *gathered.same_outcome]
    assert sorted(group.task.id for group in groups) == ["t0", "t1", "t2"]
    for played in groups:
        siblings = sorted((*played.rollouts, *played.broken), key=lambda r: r.sibling)
        assert [(r.sibling, r.seed) for r in siblings] == [(i, derive_seed(5, 0, played.task.id, i)) for i in range(4)]


async def test_a_broken_rollout_does_not_disturb_its_siblings():
    made: list[ScriptedEnvironment] = []

    def make() -> ScriptedEnvironment:
        trouble = [OSError("gone"), None, SystemExit(1), asyncio.CancelledError()]
        made.append(ScriptedEnvironment(*([trouble[len(made)]] if len(made) < 4 else [tool("found")])))
        return made[-1]

    sampler = ScriptedSampler(lambda seed: ["<call> look </call>", "kind"])
    plays = [RolloutRecorder(TASK, i, i) for i in range(6)]
    rollouts = await play_cohort(plays, context(make, sampler, Limits(seconds=0.05)))
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
    plays = [RolloutRecorder(TASK, i, i) for i in range(3)]
    with pytest.raises(MemoryError):
        await asyncio.wait_for(play_cohort(plays, context(make, sampler, Limits(seconds=30))), 2)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert all(session.closed == 1 for session in sampler.sessions)
    assert all(environment.closed == 1 for environment in made)


def test_an_opening_may_differ_from_task_to_task():
    """The prompt is the task's own: siblings share it, tasks do not."""

    class Named(ScriptedEnvironment):
        async def open(self, task: Task, seed: int) -> InitialMessages:
            return InitialMessages(({"role": "user", "content": task.id},), ())

    sampler = ScriptedSampler(lambda seed: ["kind"], slots=8)

    async def prompts() -> list[list[int]]:
        groups = await play_groups(tasks_of(2), context(Named, sampler), group_size=2, seed=0, step=0)
        return [r.prompt.tolist() for group in groups for r in group.rollouts]

    first, second, third, fourth = asyncio.run(prompts())
    assert first == second != third == fourth


@pytest.mark.parametrize("slots", [3, 8, 99])
def test_a_group_is_told_of_as_soon_as_its_last_sibling_has_ended(slots: int):
    """The first task's environment takes its time, so that the others' groups are whole before."""

    class Slow(Guess):
        async def open(self, task: Task, seed: int) -> InitialMessages:
            await asyncio.sleep(0.05 if task.id == tasks_of(3)[0].id else 0)
            return await super().open(task, seed)

    sampler = ScriptedSampler(words, slots, random.Random(0))
    done: list[Group] = []
    num_over_when_done: list[int] = []

    def on_group_done(group: Group) -> None:
        done.append(group)
        num_over_when_done.append(sum(session.closed for session in sampler.sessions))

    groups = asyncio.run(
        play_groups(tasks_of(3), context(Slow, sampler), group_size=4, seed=5, step=0, on_group_done=on_group_done)
    )
    assert [group.task.id for group in groups] == [task.id for task in tasks_of(3)]
    assert all(len(group.rollouts + group.broken) == 4 for group in groups)
    assert all(any(group is other for other in groups) for group in done)  # each group is built once
    assert len(done) == 3
    if slots == 99:
        assert done[-1].task.id == "t0"  # the slow one is last
        assert num_over_when_done[0] < 12
