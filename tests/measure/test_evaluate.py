"""Held-out tasks are played by cohorts, seeded by task and trial alone, and every trial leaves a row."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sgcd.act.environment import TaskSuite
from sgcd.act.settings import Limits
from sgcd.act.siblings import PlayContext
from sgcd.measure import evaluate as measured
from sgcd.measure.settings import EvaluationSettings
from sgcd.records import Call, Rollout, Task, Turn, Verdict
from sgcd.seeds import derive_seed

TASKS = tuple(Task(f"dev-{i}", "action", {}) for i in range(5))


def rollout(task: Task, sibling: int = 0, seed: int = 0, **changes: Any) -> Rollout:
    """Five tokens: two of the policy, two of the environment, one of the policy."""
    told: dict[str, Any] = {
        "prompt": np.array([1, 2], np.int32),
        "reference_position": 1,
        "response": np.arange(5, dtype=np.int32),
        "response_mask": np.array([1, 1, 0, 0, 1], bool),
        "token_kinds": np.array([2, 2, 0, 0, 3], np.uint8),
        "sampling_logprobs": np.zeros(5, np.float32),
        "turns": (Turn(0, 2), Turn(4, 5)),
        "messages": (),
        "tools": (),
        "end_reason": "answered",
        "verdict": Verdict(0.5, True),
    }
    return Rollout(task=task.id, category=task.category, sibling=sibling, seed=seed, **{**told, **changes})


class Stub:
    """A sampler that only remembers its cohorts."""

    slots = 4

    def __init__(self) -> None:
        self.cohorts: list[tuple[int, float | None]] = []
        self.seeds: list[int] = []

    @asynccontextmanager
    async def cohort(self, size: int, temperature: float | None = None):
        self.cohorts.append((size, temperature))
        yield SimpleNamespace(session=lambda index, seed: self.seeds.append(seed) or index)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def run(settings: EvaluationSettings, seed: int = 7, step: int = 10, **changes: Any):
        async def play(recorder, environment, session, *, chat, limits):
            await asyncio.sleep(0.001 * (4 - session))  # the last of a cohort ends first
            return rollout(recorder.task, recorder.sibling, recorder.seed, **changes)

        monkeypatch.setattr("sgcd.act.siblings.play_rollout", play)
        nothing: Any = SimpleNamespace
        sampler: Any = Stub()
        stage = TaskSuite(environment_factory=nothing, splits={"train": (), "dev": TASKS})
        context = PlayContext(task_suite=stage, chat=nothing, sampler=sampler, limits=Limits())
        rows = asyncio.run(measured.evaluate_policy(context, settings, seed=seed, step=step))
        return rows, sampler

    return run


def test_greedy_then_sampled_in_order_of_tasks_by_cohorts_that_fit(run) -> None:
    rows, sampler = run(EvaluationSettings(tasks=3, trials=2, temperature=0.7))
    assert [(r["mode"], r["task"], r["trial"]) for r in rows] == [
        ("greedy", "dev-0", 0),
        ("greedy", "dev-1", 0),
        ("greedy", "dev-2", 0),
        ("sampled", "dev-0", 0),
        ("sampled", "dev-0", 1),
        ("sampled", "dev-1", 0),
        ("sampled", "dev-1", 1),
        ("sampled", "dev-2", 0),
        ("sampled", "dev-2", 1),
    ]
    assert sampler.cohorts == [(3, 0.0), (4, 0.7), (2, 0.7)]


def test_a_row_says_where_it_stands_and_what_came_of_it(run) -> None:
    calls = (Call("find", {"id": 1}), Call("find", {"id": 2}, is_error=True))
    rows, _ = run(EvaluationSettings(tasks=1, trials=0), turns=(Turn(0, 2, calls), Turn(4, 5, (), "no closing word")))
    assert rows == [
        {
            "schema": 1,
            "seed": 7,
            "step": 10,
            "split": "dev",
            "mode": "greedy",
            "temperature": 0.0,
            "trial": 0,
            "task": "dev-0",
            "category": "action",
            "needs_tool": None,
            "success": True,
            "reward": 0.5,
            "broken": "",
            "calls": 2,
            "failed_calls": 1,
            "malformed": 1,
            "inexact": 0,
            "looping": False,
            "turns": 2,
            "tokens": 3,
            "tokens_read": 4,
            "ending": "answered",
        }
    ]


def test_a_broken_trial_keeps_its_cause_and_is_no_success(run) -> None:
    rows, _ = run(EvaluationSettings(tasks=1, trials=0), broken="verify: boom", verdict=None, end_reason="broken")
    assert (rows[0]["broken"], rows[0]["success"], rows[0]["reward"]) == ("verify: boom", False, 0.0)


def test_seeds_depend_on_run_split_task_and_trial_never_on_the_step(run) -> None:
    settings = EvaluationSettings(tasks=2, trials=2, greedy=False)
    (_, early), (_, late), (_, other) = (run(settings, step=0), run(settings, step=40), run(settings, seed=8))
    assert early.seeds == [
        derive_seed(7, "evaluation", "dev", f"dev-{task}", trial) for task in (0, 1) for trial in (0, 1)
    ]
    assert early.seeds == late.seeds
    assert len({*early.seeds, *other.seeds}) == 8


def test_nothing_held_out_means_nothing_played(run) -> None:
    for settings in (EvaluationSettings(split="test"), EvaluationSettings(greedy=False, trials=0)):
        rows, sampler = run(settings)
        assert rows == []
        assert sampler.cohorts == []


@pytest.mark.parametrize(
    ("ids", "ending", "loops"),
    [
        ([1, 1], "answered", False),
        ([1, 1, 1], "answered", True),
        ([1, 1, 2, 1], "answered", False),
        ([2, 1, 1, 1, 2], "ended", True),
        ([1, 2], "turn_limit", True),
        ([], "token_limit", False),
    ],
)
def test_looping_is_the_same_call_three_times_in_a_row_or_no_end(ids: list[int], ending: str, loops: bool) -> None:
    calls = tuple(Call("find", {"id": i, "of": "a"} if i % 2 else {"of": "a", "id": i}) for i in ids)
    assert measured.is_looping(rollout(TASKS[0], turns=(Turn(0, 2, calls),), end_reason=ending)) is loops


def test_the_order_of_arguments_makes_no_other_call() -> None:
    assert measured.call_key(Call("f", {"a": 1, "b": 2})) == measured.call_key(Call("f", {"b": 2, "a": 1}))
    assert measured.call_key(Call("f", {"a": 1})) != measured.call_key(Call("g", {"a": 1}))
