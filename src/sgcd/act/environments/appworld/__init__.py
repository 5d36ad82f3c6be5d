"""AppWorld: a person's apps, which the policy works by writing Python, through the benchmark's own package."""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from sgcd.act.environment import InitialMessages, PrivateLiterals, Reply, TaskSuite
from sgcd.act.environments.appworld.description import (
    SHARING,
    VERDICTS_ROOT,
    WORLDS_ROOT,
    appworld_process,
    load_appworld,
)
from sgcd.act.environments.appworld.prompt import NO_CODE, read_code, write_system_message
from sgcd.act.environments.benchmark_process import BenchmarkProcess, EpisodeClient
from sgcd.act.settings import AppWorldSettings
from sgcd.act.user import User
from sgcd.records import Call, Message, ParsedTurn, Task, Verdict

EXECUTE = "execute"
"""The name under which code is recorded as a call."""
_TOKEN = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")
"""Access tokens, which apps return and which open an account."""
_HANG_FILE = "hang.txt"


class AppWorldEnvironment:
    """Plays one task in a world of its own: code blocks of a turn are run there, and the output is the reply.

    The world is a process without ground truth. Another process, which has it, reads the state that the world leaves.
    """

    def __init__(self, worlds: BenchmarkProcess, verdicts: BenchmarkProcess) -> None:
        self._worlds = worlds
        self._verdicts = verdicts
        self._task = ""
        self._folder: Path | None = None
        self._world: EpisodeClient | None = None
        self._judge: EpisodeClient | None = None
        """Opened with the world, so that a verdict does not wait for its process to start."""
        self._process = -1
        """A handle of the world's process."""
        self._has_hung = False
        self._tokens: dict[str, None] = {}
        self._private: dict[str, list[str]] = {}

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self._task = str(task.row["benchmark_id"])
        self._folder = Path(tempfile.mkdtemp(prefix="sgcd-appworld-"))
        try:
            opened = await self._open_world(self._folder)
        except RuntimeError:  # it died, or its server did; nothing was done in it, so another one takes its place
            await self._disconnect()
            opened = await self._open_world(self._folder)
        self._process = os.pidfd_open(opened["process"])
        system = {"role": "system", "content": write_system_message(opened)}
        return InitialMessages((system, {"role": "user", "content": opened["instruction"]}), tools=())

    async def _open_world(self, folder: Path) -> Mapping[str, Any]:
        world, self._judge = await asyncio.gather(self._worlds.open_episode(), self._verdicts.open_episode())
        self._world = world
        return await world.request("open", task=self._task, folder=str(folder))

    async def _disconnect(self) -> None:
        for episode in (self._world, self._judge):
            if episode:
                await episode.close()

    async def reply(self, turn: ParsedTurn) -> Reply:
        code = read_code(turn.text)
        if code is None:
            return Reply((_observation(NO_CODE),))
        result = await self._execute(code)
        self._tokens |= dict.fromkeys(_TOKEN.findall(result["output"]))
        call = Call(EXECUTE, {"code": code}, is_error=result["is_error"])
        return Reply((_observation(result["output"]),), done=result["is_completed"], calls=(call,))

    async def _execute(self, code: str) -> Any:
        """The output of the code. Code that cannot be stopped takes its world along: the task is over, and failed."""
        world, _, folder = self._opened
        try:
            return await world.request("execute", code=code)
        except RuntimeError:
            hang_file = folder / _HANG_FILE
            self._has_hung = hang_file.is_file() and hang_file.stat().st_size > 0
            if not self._has_hung:
                raise
            return {
                "output": "The code could not be stopped. The world has ended.",
                "is_error": True,
                "is_completed": True,
            }

    async def verify(self) -> Verdict:
        _, judge, folder = self._opened
        if self._has_hung:
            return Verdict(0.0, success=False, facts={"hung": True})
        verdict = dict(await judge.request("verdict", task=self._task, folder=str(folder)))
        self._private = verdict.pop("private")
        success = bool(verdict.pop("success"))
        return Verdict(float(success), success, facts=verdict)

    def private(self) -> PrivateLiterals:
        return {**self._private, "token": list(self._tokens)}

    async def close(self) -> None:
        """End the world, also one that does not answer any more, and remove its state."""
        if self._process >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            os.close(self._process)
            self._process = -1
        await self._disconnect()
        if self._folder:
            await asyncio.to_thread(rmtree, self._folder, ignore_errors=True)

    @property
    def _opened(self) -> tuple[EpisodeClient, EpisodeClient, Path]:
        if self._world is None or self._judge is None or self._folder is None:
            raise RuntimeError("the task has not been opened")
        return self._world, self._judge, self._folder


def _observation(text: str) -> Message:
    return {"role": "user", "content": text}


def appworld_tasks(settings: AppWorldSettings, user: User | None = None) -> TaskSuite:
    """The tasks by the benchmark's own splits. Its processes start with the first rollout and the first verdict."""
    folder = Path(settings.folder)
    splits = {
        split: tuple(
            Task(
                task.id,
                f"difficulty_{task.difficulty}",
                {"benchmark_id": task.id},
                needs_tool=True,
                floor=task.floor,
                scenario=task.scenario,
            )
            for task in tasks
        )
        for split, tasks in load_appworld(folder).items()
    }
    worlds, verdicts = (appworld_process(folder, root) for root in (WORLDS_ROOT, VERDICTS_ROOT))
    return TaskSuite(lambda: AppWorldEnvironment(worlds, verdicts), splits, SHARING)
