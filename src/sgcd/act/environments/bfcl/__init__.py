"""The multi-turn tasks of BFCL (the Berkeley Function-Calling Leaderboard), through the benchmark's own package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgcd.act.environment import InitialMessages, PrivateLiterals, Reply, TaskSuite
from sgcd.act.environments.benchmark_process import BenchmarkProcess, EpisodeClient
from sgcd.act.environments.bfcl.description import BfclTask, bfcl_process, load_bfcl
from sgcd.act.settings import BfclSettings
from sgcd.act.user import User
from sgcd.records import Call, Message, ParsedTurn, Task, Verdict


class BfclEnvironment:
    """Plays one task. A turn with calls goes to the functions; any other turn ends the user's turn.

    Then the scripted user says the next thing, and after the last one the conversation is over. The verdict is that of
    the package's checker. Its check of each of the user's turns is a part, so that credit can be given by turn.
    """

    _task: BfclTask

    def __init__(self, tasks: dict[str, BfclTask], process: BenchmarkProcess) -> None:
        self._tasks = tasks
        self._process = process
        self._episode: EpisodeClient | None = None
        self._user_turn = 0
        self._num_turns = [0]
        """The policy's turns in each of the user's."""
        self._first_parts: Mapping[str, str] = {}
        """What only the first request says."""

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self._task = self._tasks[task.id]
        self._first_parts = {"task": task.id}
        self._episode = await self._process.open_episode()
        late_tools = tuple(tool for tools in self._task.late_tools.values() for tool in tools)
        return InitialMessages((self._user_message(),), self._task.tools, late_tools=late_tools)

    async def reply(self, turn: ParsedTurn) -> Reply:
        self._num_turns[-1] += 1
        if turn.calls:
            return await self._call(turn.calls)
        self._user_turn += 1
        if self._user_turn == len(self._task.user):
            return Reply(done=True)
        self._num_turns.append(0)
        return Reply((self._user_message(),))

    async def _call(self, calls: tuple[Call, ...]) -> Reply:
        sent = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
        result = await self._request("calls", user_turn=self._user_turn, calls=sent)
        answers = [(answer["content"], bool(answer["is_error"])) for answer in result["answers"]]
        messages = tuple(
            {"role": "tool", "name": call.name, "content": content}
            for call, (content, _) in zip(calls, answers, strict=True)
        )
        return Reply(messages, done=result["has_too_many_steps"], call_errors=tuple(failed for _, failed in answers))

    async def verify(self) -> Verdict:
        verdict = await self._request("verdict", ended_turns=self._user_turn)
        parts = [
            {"reward": float(is_valid), "turns": num_turns}
            for is_valid, num_turns in zip(verdict["parts"], self._num_turns, strict=False)
        ]
        success = bool(verdict["is_valid"])
        return Verdict(float(success), success, {"parts": parts, "reason": verdict["reason"]})

    def private(self) -> PrivateLiterals:
        return self._task.private_literals

    async def close(self) -> None:
        if self._episode:
            await self._episode.close()

    def _user_message(self) -> Message:
        return {"role": "user", "content": self._task.user[self._user_turn]}

    async def _request(self, kind: str, **parts: Any) -> Mapping[str, Any]:
        if self._episode is None:
            raise RuntimeError("the task has not been opened")
        first_parts, self._first_parts = self._first_parts, {}
        return await self._episode.request(kind, **first_parts, **parts)


def bfcl_tasks(settings: BfclSettings, user: User | None = None) -> TaskSuite:
    """The tasks of the recipe's categories. The benchmark starts with the first rollout."""
    folder = Path(settings.folder)
    tasks, process = load_bfcl(folder), bfcl_process(folder)
    splits = {
        split: tuple(
            Task(task.id, task.category, {"benchmark_id": task.id}, needs_tool=True, floor=0.0)
            for task in tasks.values()
            if task.split == split and task.category in settings.categories
        )
        for split in ("train", "dev", "test")
    }
    return TaskSuite(lambda: BfclEnvironment(tasks, process), splits)
