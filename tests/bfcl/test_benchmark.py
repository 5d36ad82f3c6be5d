"""The benchmark's tasks as sgcd plays them: gold succeeds, doing nothing does not, parts are those of the checker."""

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.bfcl import BfclEnvironment, bfcl_tasks
from sgcd.act.environments.bfcl.description import BfclTask
from sgcd.act.environments.bfcl.setup import play_gold_calls, play_nothing
from sgcd.act.settings import BfclSettings
from sgcd.records import Call, ParsedTurn, Task, Verdict

pytestmark = pytest.mark.slow
Tasks = dict[str, BfclTask]


async def test_gold_calls_succeed_on_every_task_and_doing_nothing_on_none(
    tasks: Tasks, process: BenchmarkProcess
) -> None:
    gold = Counter([await play_gold_calls(tasks, process, task) for task in tasks.values()])
    nothing = Counter([await play_nothing(tasks, process, task) for task in tasks.values()])
    assert (gold, nothing) == ({1.0: 800}, {0.0: 800})


def test_categories_and_splits(folder: Path) -> None:
    splits = bfcl_tasks(BfclSettings(name="bfcl", folder=str(folder))).splits
    for split, size in (("train", 120), ("dev", 20), ("test", 60)):
        names = ("base", "miss_func", "miss_param", "long_context")
        assert Counter(task.category for task in splits[split]) == dict.fromkeys(names, size)
    base = bfcl_tasks(BfclSettings(name="bfcl", folder=str(folder), categories=("base",))).splits
    assert {task.category for tasks in base.values() for task in tasks} == {"base"}


ANSWER = ParsedTurn("", "done", ())


async def play(
    tasks: Tasks, process: BenchmarkProcess, task_id: str, turns: list[list[Mapping[str, Any]]]
) -> tuple[list[str], Verdict]:
    """The observations of each call, and the verdict."""
    environment = BfclEnvironment(tasks, process)
    await environment.open(Task(task_id, "", {}), seed=0)
    observations: list[str] = []
    for calls in turns:
        for each in calls:
            reply = await environment.reply(ParsedTurn("", "", (Call(each["name"], each["arguments"]),)))
            observations += [message["content"] for message in reply.messages]
        await environment.reply(ANSWER)
    verdict = await environment.verify()
    await environment.close()
    return observations, verdict


async def test_a_turn_that_is_left_out_is_a_part_without_reward(tasks: Tasks, process: BenchmarkProcess) -> None:
    gold = [[*turn] for turn in tasks["multi_turn_base_144"].gold_calls]
    assert [len(turn) for turn in gold] == [1, 1]
    _, verdict = await play(tasks, process, "multi_turn_base_144", [gold[0], []])
    assert not verdict.success
    assert verdict.facts == {
        "parts": [{"reward": 1.0, "turns": 2}, {"reward": 0.0, "turns": 1}],
        "reason": "empty_turn_model_response",
    }
    _, verdict = await play(tasks, process, "multi_turn_base_144", [[], gold[1]])
    assert [part["reward"] for part in verdict.facts["parts"]] == [0.0, 1.0]  # the package's checker ends at the first
    environment = BfclEnvironment(tasks, process)
    await environment.open(Task("multi_turn_base_144", "", {}), seed=0)
    await environment.reply(ANSWER)
    assert (await environment.verify()).facts == {"parts": [{"reward": 0.0, "turns": 1}], "reason": "unfinished"}
    await environment.close()


async def test_a_success_has_all_parts_and_a_failure_lacks_one(tasks: Tasks, process: BenchmarkProcess) -> None:
    """Gold calls from which some are dropped or played twice; the package's own verdict agrees with the parts."""
    rng = random.Random(0)
    outcomes: Counter[bool] = Counter()
    for task in rng.sample([*tasks.values()], 60):
        turns = [[each for each in turn for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))] for turn in task.gold_calls]
        _, verdict = await play(tasks, process, task.id, turns)
        assert verdict.success == all(part["reward"] for part in verdict.facts["parts"])
        assert len(verdict.facts["parts"]) == len(task.user)
        outcomes[verdict.success] += 1
    assert min(outcomes[True], outcomes[False]) > 10


async def test_a_process_plays_one_task_after_another_from_the_beginning(
    tasks: Tasks, process: BenchmarkProcess
) -> None:
    fund = {"name": "fund_account", "arguments": {"amount": 2203.4}}
    first, second = [await play(tasks, process, "multi_turn_base_100", [[fund], []]) for _ in range(2)]
    assert first == second


async def test_more_than_the_benchmark_s_steps_in_a_turn_end_the_conversation(
    tasks: Tasks, process: BenchmarkProcess
) -> None:
    environment = BfclEnvironment(tasks, process)
    await environment.open(Task("multi_turn_base_11", "", {}), seed=0)
    replies = [await environment.reply(ParsedTurn("", "", (Call("ls", {"a": True}),))) for _ in range(21)]
    assert [reply.done for reply in replies] == [False] * 20 + [True]
    verdict = await environment.verify()
    assert (verdict.reward, verdict.facts["reason"]) == (0.0, "unfinished")
    await environment.close()
