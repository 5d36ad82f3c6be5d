"""Games that TextWorld generates: a quest in a few rooms, played by typed commands."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgcd.act.environment import InitialMessages, PrivateLiterals, Reply, TaskSuite
from sgcd.act.environments.benchmark_process import BenchmarkProcess, EpisodeClient, ServerCommand
from sgcd.act.settings import TextWorldSettings
from sgcd.act.user import User
from sgcd.errors import EnvironmentFault
from sgcd.records import ParsedTurn, Task, Verdict

GAMES_FILE = "games.json"
GAMES_FORMAT = 1
NUM_GAMES: Mapping[str, int] = {"train": 60, "dev": 20, "test": 100}
"""Games of each split; make_games.py has their seeds."""
SYSTEM = "You play a text adventure. Type one command at a time with the tool play, until the task is done."
PLAY_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "play",
        "description": "Type a command, such as: go north, open box, take key from box, unlock door with key, look.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The command."}},
            "required": ["command"],
        },
    },
}


class TextWorldEnvironment:
    """Plays one game. A won or a lost game is over; so is one in which the policy types no more."""

    _episode: EpisodeClient

    def __init__(self, process: BenchmarkProcess, *, admissible: bool) -> None:
        self._process = process
        self._admissible = admissible
        self._is_open = False
        self._is_won = False
        self._num_commands = 0
        self.walkthrough: tuple[str, ...] = ()
        """Commands that win the game."""

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self._episode, self._is_open = await self._process.open_episode(), True
        opening = await self._episode.request("open", game=task.id, admissible=self._admissible)
        self.walkthrough = tuple(opening["walkthrough"])
        messages = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": opening["text"]})
        return InitialMessages(messages, (PLAY_TOOL,))

    async def reply(self, turn: ParsedTurn) -> Reply:
        messages = list[dict[str, Any]]()
        call_errors = list[bool]()
        is_over = not turn.calls
        for call in turn.calls:
            command = call.arguments.get("command")
            if is_over or not isinstance(command, str) or len(call.arguments) != 1:
                text = "error : the game is over" if is_over else "error : play needs one argument, command, a text"
                call_errors.append(True)
            else:
                found = await self._episode.request("command", command=command)
                self._num_commands += 1
                self._is_won, is_over = found["is_won"], found["is_won"] or found["is_lost"]
                text = found["text"]
                call_errors.append(found["is_error"])
            messages.append({"role": "tool", "name": call.name, "content": text})
        return Reply(tuple(messages), done=is_over, call_errors=tuple(call_errors))

    async def verify(self) -> Verdict:
        return Verdict(float(self._is_won), self._is_won, {"commands": self._num_commands})

    def private(self) -> PrivateLiterals:
        return ()

    async def close(self) -> None:
        if self._is_open:
            await self._episode.close()


def textworld_process(folder: Path) -> BenchmarkProcess:
    """The server of the games in a folder."""
    script = Path(__file__).with_name("game_server.py")
    games = str((folder / "games").resolve())
    setup = f"sgcd setup textworld --folder {folder}"
    return BenchmarkProcess(ServerCommand(folder, script, "GameLibrary", setup, (games,), reuses_episodes=True))


def game_task(name: str) -> Task:
    return Task(name, "game", {}, needs_tool=True, floor=0.0)


def textworld_tasks(settings: TextWorldSettings, user: User | None = None) -> TaskSuite:
    """The games that `sgcd setup textworld` has made. TextWorld starts with the first rollout."""
    folder = Path(settings.folder)
    path, again = folder / GAMES_FILE, f"sgcd setup textworld --folder {folder}"
    if not path.is_file():
        raise EnvironmentFault(f"environment.folder: {folder} holds no games; make them: {again}")
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != GAMES_FORMAT:
        raise EnvironmentFault(f"environment.folder: {path} is of another version of sgcd; make it anew: {again}")
    splits = {split: tuple(map(game_task, names)) for split, names in description["games"].items()}
    process = textworld_process(folder)
    return TaskSuite(lambda: TextWorldEnvironment(process, admissible=settings.admissible), splits)
