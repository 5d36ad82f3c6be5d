"""What a policy may try with BFCL's calls is an observation without effect; what dies breaks one rollout."""

import os
from pathlib import Path
from typing import Any

import pytest

from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.bfcl import BfclEnvironment
from sgcd.act.environments.bfcl.description import BfclTask, bfcl_process
from sgcd.records import Call, ParsedTurn, Task

pytestmark = pytest.mark.slow
TASK = Task("multi_turn_base_144", "base", {})
"""A task with the functions of the mathematics."""


async def opened(tasks: dict[str, BfclTask], process: BenchmarkProcess) -> BfclEnvironment:
    environment = BfclEnvironment(tasks, process)
    await environment.open(TASK, seed=0)
    return environment


async def observe(environment: BfclEnvironment, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    reply = await environment.reply(ParsedTurn("", "", (Call(name, arguments),)))
    return reply.messages[0]["content"], reply.call_errors[0]


MALICE: list[tuple[str, dict[str, Any]]] = [
    ("exec", {"object": "open('leak', 'w')"}),
    ("open", {"file": "leak", "mode": "w"}),
    ("__import__", {"name": "os"}),
    ("exit", {}),
    ("importlib.import_module", {"name": "os"}),
    ("execute_multi_turn_func_call", {"func_call_list": ["open('leak', 'w')"]}),
    ("_load_scenario", {"scenario": {}}),
    ("mean", {"numbers=[1]) or open('leak', 'w') or mean(numbers": [1]}),
    ("mean", {"numbers=__import__('os').system('touch leak'), x": 1}),
    ("mean", {"**{'numbers': [1]}, x": 1}),
    ("mean(numbers=[1]) or open", {"file": "leak", "mode": "w"}),
    ("mean", {"numbers": float("nan")}),
]


async def test_what_is_no_call_of_a_known_function_is_refused(
    tasks: dict[str, BfclTask], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = bfcl_process(folder)
    environment = await opened(tasks, process)
    for name, arguments in MALICE:
        content, is_error = await observe(environment, name, arguments)
        assert is_error, (name, content)
        assert content.startswith("Error: unknown function") or content == "Error: arguments must be literals by name"
    told = await observe(environment, "mean", {"numbers": "__import__('os').system('touch leak')"})
    assert told == ('{"error": "All elements in the list must be numbers"}', True)
    assert (await observe(environment, "mean", {"numbers": [1, 3]}))[0] == '{"result": 2.0}'
    assert files_in(tmp_path) == []
    await environment.close()
    process.stop()


async def test_a_call_that_hangs_or_fills_memory_is_an_observation(
    tasks: dict[str, BfclTask], process: BenchmarkProcess
) -> None:
    environment = await opened(tasks, process)
    hangs = await observe(environment, "power", {"base": 9**9, "exponent": 9**9})
    assert hangs == ("Error: the call took more than 2 seconds of processor time", True)
    content, is_error = await observe(environment, "logarithm", {"value": 2, "base": 3, "precision": 10**9})
    assert is_error, content
    assert (await observe(environment, "mean", {"numbers": [1, 3]}))[0] == '{"result": 2.0}'
    await environment.reply(ParsedTurn("", "done", ()))
    await environment.reply(ParsedTurn("", "done", ()))
    assert not (await environment.verify()).success
    await environment.close()


def files_in(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_process_that_is_killed_breaks_its_rollout_and_the_next_begins_anew(
    tasks: dict[str, BfclTask], folder: Path
) -> None:
    process = bfcl_process(folder)
    environment = await opened(tasks, process)
    await observe(environment, "mean", {"numbers": [1]})
    server = process._process.pid  # pyright: ignore
    for pid in [*children_of(server), server]:
        os.kill(pid, 9)
    with pytest.raises(RuntimeError, match="the benchmark's process ended during calls"):
        await observe(environment, "mean", {"numbers": [1]})
    await environment.close()
    environment = await opened(tasks, process)
    assert (await observe(environment, "mean", {"numbers": [1]}))[0] == '{"result": 1.0}'
    await environment.close()
    process.stop()
