"""The games as sgcd plays them: walkthroughs win, random play hardly ever, and nothing leaves the game."""

import random
from pathlib import Path
from typing import Any

import pytest

from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.textworld import TextWorldEnvironment, game_task, textworld_tasks
from sgcd.act.environments.textworld.setup import play_walkthrough
from sgcd.act.settings import TextWorldSettings
from sgcd.records import Call, ParsedTurn

pytestmark = pytest.mark.slow
TURNS = 24
"""As in the recipes."""


def play(**arguments: Any) -> ParsedTurn:
    return ParsedTurn("", "", (Call("play", arguments),))


async def test_walkthroughs_win_all_games_of_the_test(process: BenchmarkProcess) -> None:
    assert sum([(await play_walkthrough(process, f"test-{number}"))[0] for number in range(100)]) == 100


async def test_random_play_hardly_ever_wins(process: BenchmarkProcess) -> None:
    """Each command is one of those that are possible."""
    rng, wins = random.Random(0), 0
    for number in range(100):
        environment = TextWorldEnvironment(process, admissible=True)
        text = (await environment.open(game_task(f"test-{number}"), seed=0)).messages[-1]["content"]
        for _ in range(TURNS):
            reply = await environment.reply(play(command=rng.choice(text.rpartition("Commands: ")[2].split(", "))))
            text = reply.messages[0]["content"]
            if reply.done:
                break
        wins += (await environment.verify()).success
        await environment.close()
    assert wins < 10


async def test_errors_are_observations_and_a_game_that_is_over_takes_no_command(
    process: BenchmarkProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = TextWorldEnvironment(process, admissible=False)
    await environment.open(game_task("train-0"), seed=0)
    for arguments, text in (
        ({"command": "save"}, "error : save is no command of the game"),
        ({"command": "go north. save"}, "error : save is no command of the game"),
        ({"command": 7}, "error : play needs one argument, command, a text"),
        ({"command": "look", "times": 2}, "error : play needs one argument, command, a text"),
        ({}, "error : play needs one argument, command, a text"),
    ):
        reply = await environment.reply(play(**arguments))
        assert (reply.messages[0]["content"], reply.call_errors, reply.done) == (text, (True,), False)
    first, second = [(await environment.reply(play(command="look"))).messages for _ in range(2)]
    assert first == second
    assert "Commands:" not in first[0]["content"]
    calls = [Call("play", {"command": command}) for command in (*environment.walkthrough, "look")]
    reply = await environment.reply(ParsedTurn("", "", tuple(calls)))
    assert (reply.done, reply.call_errors[-1]) == (True, True)
    assert reply.messages[-1]["content"] == "error : the game is over"
    assert (await environment.verify()).success
    await environment.close()


async def test_a_turn_without_a_command_gives_up(process: BenchmarkProcess) -> None:
    environment = TextWorldEnvironment(process, admissible=False)
    await environment.open(game_task("train-1"), seed=0)
    assert (await environment.reply(ParsedTurn("", "i give up", ()))).done
    assert not (await environment.verify()).success
    await environment.close()


def test_the_splits_share_no_game(folder: Path) -> None:
    splits = textworld_tasks(TextWorldSettings(name="textworld", folder=str(folder))).splits
    assert {split: len(tasks) for split, tasks in splits.items()} == {"train": 60, "dev": 20, "test": 100}
    games = [(folder / "games" / f"{task.id}.json").read_bytes() for tasks in splits.values() for task in tasks]
    assert len({*games}) == 180
