"""Makes the environment of BFCL in a folder, and plays the gold calls of every task."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sgcd.act.environments.benchmark_folder import check_environment_folder, make_environment
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.bfcl import BfclEnvironment
from sgcd.act.environments.bfcl.description import (
    BFCL_DESCRIPTION,
    BFCL_FORMAT,
    BfclTask,
    bfcl_process,
    parse_tasks,
)
from sgcd.records import Call, ParsedTurn, Task
from sgcd.storage.atomic import write_atomic

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def set_up_bfcl(folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Install the package, write down its tasks and play them; returns what was found, as JSON."""
    check_environment_folder(folder)
    (folder / BFCL_DESCRIPTION).unlink(missing_ok=True)  # until it is written again the folder is not complete
    report(f"installing bfcl-eval into {folder}")
    make_environment(folder, ["--no-deps", "--requirement", str(_REQUIREMENTS)], "BFCL")
    description, found = asyncio.run(_describe(folder))
    played = f"the gold calls succeed on {found['gold']} of them, doing nothing on {found['nothing']}"
    report(f"{found['tasks']} tasks; {played}")
    write_atomic(folder / BFCL_DESCRIPTION, json.dumps(description, ensure_ascii=False).encode())
    return {"version": description["version"], "folder": str(folder), **found}


async def _describe(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    process = bfcl_process(folder)
    try:
        episode = await process.open_episode()
        description = {"format": BFCL_FORMAT, **await episode.request("describe")}
        await episode.close()
        tasks = parse_tasks(description)
        gold = [await play_gold_calls(tasks, process, task) for task in tasks.values()]
        nothing = [await play_nothing(tasks, process, task) for task in tasks.values()]
    finally:
        process.stop()
    return description, {"tasks": len(tasks), "gold": gold.count(1.0), "nothing": nothing.count(1.0)}


async def play_gold_calls(tasks: Mapping[str, BfclTask], process: BenchmarkProcess, task: BfclTask) -> float:
    """Play the gold calls of a task, one a turn; returns the reward."""
    return await _play(tasks, process, task, task.gold_calls)


async def play_nothing(tasks: Mapping[str, BfclTask], process: BenchmarkProcess, task: BfclTask) -> float:
    """Answer each of the user's turns without a call; returns the reward."""
    return await _play(tasks, process, task, [[] for _ in task.user])


async def _play(tasks: Mapping[str, BfclTask], process: BenchmarkProcess, task: BfclTask, turns: Any) -> float:
    environment = BfclEnvironment(dict(tasks), process)
    await environment.open(Task(task.id, task.category, {}), seed=0)
    try:
        for calls in turns:
            for call in calls:
                await environment.reply(ParsedTurn("", "", (Call(call["name"], call["arguments"]),)))
            await environment.reply(ParsedTurn("", "done", ()))
        return (await environment.verify()).reward
    finally:
        await environment.close()
