import asyncio
import random
from collections.abc import Sequence

import pytest

from helpers.scripted import CHAT, TASK, ScriptedEnvironment, ScriptedSampler, stage_of, tasks_of, tool
from sgcd.act.environment import InitialMessages, Reply
from sgcd.act.settings import Limits, SiblingsSettings
from sgcd.act.siblings import CollectedGroups, GroupStream, RolloutSpec, collect_mixed_groups, play_cohort, play_groups
from sgcd.act.task_order import TaskCursor
from sgcd.records import ParsedTurn, Task, Verdict
from sgcd.seeds import derive_seed


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

        async def play_them(
            some: Sequence[Task], sampler: ScriptedSampler = sampler, number: int = number
        ) -> GroupStream:
            async for groups in play_groups(some, 4, stage_of(Guess), CHAT, sampler.as_sampler(), Limits(), 5, number):
                yield groups

        gathered = asyncio.run(collect_mixed_groups(tasks, cursor, SiblingsSettings(groups=2, size=4), 5, play_them))
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
    seen = play_groups(tasks_of(3), 4, stage_of(Guess), CHAT, sampler.as_sampler(), Limits(), 5, 0)
    groups = [group async for some in seen for group in some]
    assert sampler.sizes == sizes
    assert [group.task.id for group in groups] == ["t0", "t1", "t2"]
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
    plays = [RolloutSpec(TASK, i, i) for i in range(6)]
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
    plays = [RolloutSpec(TASK, i, i) for i in range(3)]
    with pytest.raises(MemoryError):
        await asyncio.wait_for(play_cohort(plays, stage_of(make), CHAT, sampler.as_sampler(), Limits(seconds=30)), 2)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert all(session.closed == 1 for session in sampler.sessions)
    assert all(environment.closed == 1 for environment in made)


def test_an_opening_may_differ_from_task_to_task():
    """The prompt is the task's own: siblings share it, tasks do not."""

    class Named(ScriptedEnvironment):
        async def open(self, task: Task, seed: int) -> InitialMessages:
            return InitialMessages(({"role": "user", "content": task.id},), (), reference_message=0)

    sampler = ScriptedSampler(lambda seed: ["kind"], slots=8)

    async def prompts() -> list[list[int]]:
        played = play_groups(tasks_of(2), 2, stage_of(Named), CHAT, sampler.as_sampler(), Limits(), 0, 0)
        return [r.prompt.tolist() for some in [g async for g in played] for group in some for r in group.rollouts]

    first, second, third, fourth = asyncio.run(prompts())
    assert first == second != third == fourth


@pytest.mark.parametrize("slots", [3, 8, 99])
def test_a_group_is_told_of_as_soon_as_its_last_sibling_has_ended(slots: int):
    """The first task's environment takes its time, so that the others' groups are whole before."""

    class Slow(Guess):
        async def open(self, task: Task, seed: int) -> InitialMessages:
            await asyncio.sleep(0.05 if task.id == tasks_of(3)[0].id else 0)
            return await super().open(task, seed)

    told: list[tuple[str, int, bool]] = []
    over: list[str] = []

    async def played() -> list[list[str]]:
        sampler = ScriptedSampler(words, slots, random.Random(0)).as_sampler()
        given = (4, stage_of(Slow), CHAT, sampler, Limits(), 5, 0)
        names = list[list[str]]()
        async for groups in play_groups(
            tasks_of(3), *given, on_group_done=lambda g: told.append((g.task.id, len(g.rollouts + g.broken), not over))
        ):
            over.extend(group.task.id for group in groups)
            names.append([group.task.id for group in groups])
        return names

    names = asyncio.run(played())
    everyone = [task.id for task in tasks_of(3)]
    assert sorted(name for name, _, _ in told) == sorted(everyone) == sorted(over)
    assert {count for _, count, _ in told} == {4}
    if slots == 99:
        assert names == [everyone]
        assert [early for *_, early in told] == [True] * 3
        assert told[-1][0] == everyone[0], "the slow one last"
