"""Installs TextWorld in a folder, makes the games of each split there, and plays their walkthroughs."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sgcd.act.environments.benchmark_folder import check_environment_folder, make_environment
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.textworld import (
    GAMES_FILE,
    GAMES_FORMAT,
    NUM_GAMES,
    PLAY_TOOL,
    TextWorldEnvironment,
    game_task,
    textworld_process,
)
from sgcd.errors import EnvironmentFault
from sgcd.records import Call, ParsedTurn
from sgcd.storage.atomic import write_atomic

WALKTHROUGHS_FILE = "walkthroughs.jsonl"
"""Conversations that win the games of the train split, for `sgcd sft`."""
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_MAKER = Path(__file__).with_name("make_games.py")


def set_up_textworld(folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Returns what was found, as JSON. Games that are there already stay, so a setup that was stopped goes on."""
    check_environment_folder(folder)
    (folder / GAMES_FILE).unlink(missing_ok=True)  # until it is written again the folder is not complete
    report(f"installing textworld into {folder}")
    make_environment(folder, ["--no-deps", "--requirement", str(_REQUIREMENTS)], "TextWorld")
    games = {split: [f"{split}-{number}" for number in range(count)] for split, count in NUM_GAMES.items()}
    names = [name for split in games.values() for name in split]
    report(f"making {len(names)} games, two to three seconds each")
    make_games(folder, names)
    process = textworld_process(folder)
    try:
        played = asyncio.run(_play_all(process, names))
    finally:
        process.stop()
    won = [name for name, (is_won, _) in played.items() if is_won]
    report(f"the walkthroughs win {len(won)} of {len(names)} games")
    conversations = [{"messages": played[name][1], "tools": [PLAY_TOOL]} for name in games["train"] if name in won]
    lines = [json.dumps(conversation, ensure_ascii=False) + "\n" for conversation in conversations]
    write_atomic(folder / WALKTHROUGHS_FILE, "".join(lines).encode())
    write_atomic(folder / GAMES_FILE, json.dumps({"format": GAMES_FORMAT, "games": games}).encode())
    return {"folder": str(folder), "games": len(names), "won": len(won)}


def make_games(folder: Path, names: Sequence[str]) -> None:
    """Make the games in as many processes as there are processors."""
    (folder / "games").mkdir(exist_ok=True)
    num_processes = os.cpu_count() or 1
    makers = [
        subprocess.Popen(
            [folder / "bin/python", "-P", _MAKER, folder / "games", *names[start::num_processes]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for start in range(num_processes)
    ]
    messages = [maker.communicate()[1] for maker in makers]
    for maker, message in zip(makers, messages, strict=True):
        if maker.returncode:
            reason = (message.strip().splitlines() or ["it gave no reason"])[-1]
            raise EnvironmentFault(f"{folder}: TextWorld could not make a game: {reason}")


async def _play_all(process: BenchmarkProcess, names: Sequence[str]) -> dict[str, tuple[bool, list[dict[str, Any]]]]:
    return {name: await play_walkthrough(process, name) for name in names}


async def play_walkthrough(process: BenchmarkProcess, name: str) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the walkthrough wins, and the conversation up to the winning command."""
    environment = TextWorldEnvironment(process, admissible=False)
    opening = await environment.open(game_task(name), seed=0)
    messages: list[dict[str, Any]] = [*opening.messages]
    try:
        for number, command in enumerate(environment.walkthrough):
            reply = await environment.reply(ParsedTurn("", "", (Call("play", {"command": command}),)))
            function = {"name": "play", "arguments": json.dumps({"command": command})}
            call = {"id": str(number), "type": "function", "function": function}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": str(number), "content": reply.messages[0]["content"]})
        return (await environment.verify()).success, messages[:-1]
    finally:
        await environment.close()
