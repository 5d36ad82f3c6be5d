"""The benchmark's tasks as sgcd plays them: gold succeeds, doing nothing has its floor, categories are the paper's."""

from collections import Counter
from pathlib import Path

import pytest

from sgcd.act.environments.airline import airline_tasks
from sgcd.act.environments.airline.description import Domain
from sgcd.act.environments.airline.setup import play_gold
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.settings import AirlineSettings

pytestmark = pytest.mark.slow
TEST_TASKS = {
    "action": [8, 16, 18, 19, 22, 24, 25, 29, 30, 32, 35, 37, 44],
    "information": [2, 6, 45, 48],
    "transfer": [13],
    "no_action": [26, 31],
}


async def test_gold_calls_succeed_on_every_task(domain: Domain, process: BenchmarkProcess) -> None:
    rewards = {task: await play_gold(domain, process, task) for task in domain.tasks}
    assert len(rewards) == 50
    assert {task: reward for task, reward in rewards.items() if reward != 1.0} == {}


def test_categories_and_floors_are_the_paper_s(folder: Path) -> None:
    splits = airline_tasks(AirlineSettings(name="airline", folder=str(folder))).splits
    test = {
        category: sorted(int(task.row["benchmark_id"]) for task in splits["test"] if task.category == category)
        for category in TEST_TASKS
    }
    assert test == TEST_TASKS
    assert Counter(task.category for task in splits["train"]) == {"action": 13, "information": 12, "no_action": 5}
    assert [sum(task.floor or 0 for task in splits[split]) for split in ("train", "test")] == [16, 7]
