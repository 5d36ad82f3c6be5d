"""The airline and retail domains of tau2-bench (the paper's tau3-airline), through the benchmark's own package."""

from pathlib import Path
from typing import Any

from sgcd.act.environment import InitialMessages, PrivateLiterals, Reply, TaskSuite
from sgcd.act.environments.airline.description import BenchmarkTask, Domain, airline_process, load_domain
from sgcd.act.environments.benchmark_process import BenchmarkProcess, EpisodeClient
from sgcd.act.settings import AirlineSettings
from sgcd.act.user import User
from sgcd.records import ParsedTurn, Task, Verdict

END_MARKS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
"""Marks with which the benchmark's user ends the conversation."""


class AirlineEnvironment:
    """Plays one task. The benchmark's process has the tools and the verdict; the conversation with the user is here.

    A turn with calls goes to the tools, and the user sees nothing of it; any other turn goes to the user. Without a
    model as the user, a scripted one says its wish and leaves when it is answered.
    """

    _task: BenchmarkTask

    def __init__(self, domain: Domain, process: BenchmarkProcess, user: User | None) -> None:
        self._domain = domain
        self._process = process
        self._user = user
        self._episode: EpisodeClient | None = None
        self._user_view: list[dict[str, Any]] = []
        self._seed = 0

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self._task, self._seed = self._domain.tasks[task.id], seed
        self._episode = await self._process.open_episode()
        greeting = self._domain.greeting
        self._user_view = [
            {"role": "system", "content": self._task.user_prompt},
            {"role": "user", "content": greeting},
        ]
        messages = ({"role": "system", "content": self._domain.system}, {"role": "assistant", "content": greeting})
        return InitialMessages(messages, self._domain.tools, ask_user=self._ask_user)

    async def reply(self, turn: ParsedTurn) -> Reply:
        calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in turn.calls]
        result = await self._opened_episode.request("turn", text=turn.text, calls=calls)
        if not calls:
            if turn.text:
                self._user_view.append({"role": "user", "content": turn.text})
            return Reply(ask_user=self._ask_user)
        messages = tuple(
            {"role": "tool", "name": call.name, "content": answer["content"]}
            for call, answer in zip(turn.calls, result["answers"], strict=True)
        )
        call_errors = tuple(bool(answer["is_error"]) for answer in result["answers"])
        return Reply(messages, done=result["has_too_many_errors"], call_errors=call_errors)

    async def _ask_user(self) -> Reply:
        text = await self._next_user_text()
        self._user_view.append({"role": "assistant", "content": text})
        return Reply(({"role": "user", "content": text},), done=any(mark in text for mark in END_MARKS))

    async def _next_user_text(self) -> str:
        if self._user:
            return await self._user.complete(self._user_view, self._seed) or END_MARKS[0]
        has_spoken = any(message["role"] == "assistant" for message in self._user_view)
        return END_MARKS[0] if has_spoken else self._task.first_words

    async def verify(self) -> Verdict:
        verdict = await self._opened_episode.request("verdict", task=self._task.id, gold_hash=self._task.gold_hash)
        return Verdict(verdict["reward"], success=verdict["reward"] >= 1, facts={"parts": verdict["parts"]})

    def private(self) -> PrivateLiterals:
        return self._task.private_literals()

    async def close(self) -> None:
        if self._episode:
            await self._episode.close()

    @property
    def _opened_episode(self) -> EpisodeClient:
        if self._episode is None:
            raise RuntimeError("the task has not been opened")
        return self._episode


def airline_tasks(settings: AirlineSettings, user: User | None = None) -> TaskSuite:
    """The tasks of a domain by the benchmark's own splits. The benchmark starts with the first rollout."""
    folder = Path(settings.folder)
    domain = load_domain(folder, settings.domain)
    process = airline_process(folder, settings.domain)
    splits = {
        split: tuple(
            Task(task_id, task.category, {"benchmark_id": task.id}, floor=task.floor)
            for task_id, task in domain.tasks.items()
            if task.split == split
        )
        for split in ("train", "test")
    }
    return TaskSuite(lambda: AirlineEnvironment(domain, process, user), splits)
