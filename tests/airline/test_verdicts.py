"""Scripted policies get the verdicts and the answers that the benchmark's own orchestrator and evaluator give them."""

from collections.abc import Sequence
from typing import Any

import pytest

from sgcd.act.environments.airline import AirlineEnvironment
from sgcd.act.environments.airline.description import BenchmarkTask, Domain
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.records import Call, ParsedTurn, Task

pytestmark = pytest.mark.slow
Turn = dict[str, Any]


def says(text: str) -> Turn:
    return {"text": text, "calls": []}


def calls(*parts: Any, text: str = "") -> Turn:
    return {"text": text, "calls": [{"name": part["name"], "arguments": part["arguments"]} for part in parts]}


def unlike_gold(task: BenchmarkTask) -> list[Turn]:
    """A conversation with every kind of trouble: another order of calls, errors, half of the work, text with calls."""
    half = task.gold_calls[: (len(task.gold_calls) + 1) // 2]
    wrong = [
        {"name": "get_user_details", "arguments": {"user_id": 7}},
        {"name": "get_user_details", "arguments": {"name": "mia"}},
        {"name": "no_such_tool", "arguments": {}},
        {"name": "calculate", "arguments": {"expression": "2 + two"}},
        {"name": "send_certificate", "arguments": {"user_id": "nobody", "amount": "much"}},
    ]
    number = int(task.id)
    return [
        calls(*wrong[: 1 + number % 5], text=" ".join(task.communicate[: number % 2])),
        *([calls(*half, text="one moment")] if half else []),
        says("That is all." if number % 3 else f"{' and '.join(task.communicate)} it is."),
    ]


def many_errors(task: BenchmarkTask) -> list[Turn]:
    unknown = {"name": "get_flight_status", "arguments": {}}
    return [calls(*[unknown] * 9), calls(unknown), says(" ".join(task.communicate))]


async def play(domain: Domain, process: BenchmarkProcess, task_id: str, turns: Sequence[Turn]) -> dict[str, Any]:
    environment = AirlineEnvironment(domain, process, user=None)
    await environment.open(Task(task_id, "action", {}), seed=0)
    answers = list[str]()
    try:
        for turn in turns:
            parsed = tuple(Call(call["name"], call["arguments"]) for call in turn["calls"])
            reply = await environment.reply(ParsedTurn("", turn["text"], parsed))
            answers += [message["content"] for message in reply.messages]
            if reply.done:
                break
        return {"reward": (await environment.verify()).reward, "answers": answers}
    finally:
        await environment.close()


async def test_verdicts_and_answers_are_the_orchestrator_s(
    domain: Domain, process: BenchmarkProcess, in_benchmark: Any
) -> None:
    gold = {
        task_id: [*(calls(call) for call in task.gold_calls), says(" ".join(["Done.", *task.communicate]))]
        for task_id, task in [*domain.tasks.items()][::8]
    }
    plays = [*gold.items(), *((task_id, unlike_gold(task)) for task_id, task in domain.tasks.items())]
    plays += [(task_id, many_errors(domain.tasks[task_id])) for task_id in [*domain.tasks][:2]]
    ours = [await play(domain, process, *each) for each in plays]
    theirs = in_benchmark(
        "play_orchestrator.py", plays=[{"task": domain.tasks[task].id, "turns": turns} for task, turns in plays]
    )
    assert len(ours) == len(theirs) == 59
    for (task_id, _), our, their in zip(plays, ours, theirs, strict=True):
        assert our == {"reward": their["reward"], "answers": their["answers"]}, task_id
    assert [play["ending"] for play in theirs[-2:]] == ["too_many_errors"] * 2
    assert 5 < sum(play["reward"] for play in theirs[7:]) < 45, "the second half should be mixed"
