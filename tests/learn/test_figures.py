"""What a step's rollouts amount to, counted by hand; and where its time goes."""

import time
from dataclasses import replace
from typing import Any

from helpers.tiny_policy import rollout
from sgcd.act.siblings import CollectedGroups, TaskCursor
from sgcd.learn.training.rollout_metrics import rollout_metrics
from sgcd.learn.training.timers import PHASES, ModelThread, StepTimer, peak_memory
from sgcd.records import Call, Category, Group, Rollout, Task, Turn, Verdict


def played(task: str, outcomes: str, category: Category = "action", broken: int = 0, **changes: Any) -> Group:
    """A group whose rollouts succeeded (+) or failed (-), three tokens written by each."""
    whole: list[Rollout] = []
    for index, letter in enumerate(outcomes):
        won = letter == "+"
        one = rollout("xx.x", task, index)
        whole.append(replace(one, category=category, verdict=Verdict(float(won), won), **changes))
    lost = [
        replace(rollout("x", task, 9 - index), verdict=None, broken="reply: it hung", end_reason="broken")
        for index in range(broken)
    ]
    return Group(Task(task, category, {}), tuple(whole), tuple(lost))


def test_counts_by_hand() -> None:
    calls = (Turn(0, 2, (Call("a", {}), Call("b", {}, is_error=True))),)
    gathered = CollectedGroups(
        kept=(played("k", "+-", turns=calls, truncations={"tokens": 1}, end_reason="token_limit"),),
        extra=(played("s", "+-", "information", broken=1, truncations={"tokens": 1, "observation": 2}),),
        same_outcome=(played("u", "++"), played("v", "--"), played("w", "+", broken=2)),
        rounds=2,
        cursor=TaskCursor(),
    )
    told = rollout_metrics(gathered)
    assert told.tasks == 5
    assert (told.kept, told.mixed, told.rounds) == (1, 2, 2)
    assert (told.uniform_success, told.uniform_failure, told.too_few) == (1, 1, 1)
    assert (told.rollouts, told.broken) == (12, 3)
    assert told.causes == {"reply: it hung": 3}
    assert (told.tokens_sampled, told.tokens_learnt) == (9 * 3 + 3, 6)
    assert told.success == told.reward == 5 / 9
    assert (told.calls, told.calls_in_error) == (4, 0.5)
    assert told.cuts == {"observation": 4, "tokens": 4}
    assert told.endings == {"answered": 7, "token_limit": 2}
    assert told.audit["information"].without_tool == 1
    assert told.audit["action"].model_dump() == {
        "successes": 4,
        "without_tool": 3,
        "without_tool_share": 0.75,
        "tools_per_success": 0.5,
    }


def test_time_is_split_by_phase() -> None:
    told: list[str] = []
    with ModelThread() as thread:
        clock = StepTimer(thread, told.append)
        with clock.phase("sampling"):
            thread.submit(time.sleep, 0.05).result()
            time.sleep(0.03)  # an environment at work
        with clock.phase("training"):
            time.sleep(0.02)
        time.sleep(0.01)
        seconds = clock.pop_seconds()
    assert told == ["sampling", "training"]
    assert tuple(seconds) == (*PHASES, "total")
    least = {"sampling": 0.05, "environment": 0.03, "training": 0.02, "other": 0.01, "total": 0.11}
    assert all(seconds[phase] >= 0.95 * expected for phase, expected in least.items())
    assert abs(sum(seconds[phase] for phase in PHASES) - seconds["total"]) < 1e-4
    assert clock.pop_seconds()["training"] == 0


def test_memory_is_in_bytes() -> None:
    assert 10**7 < peak_memory() < 10**12
