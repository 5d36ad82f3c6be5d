"""An environment from a plain class whose public methods are tools."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sgcd.act import settings
from sgcd.act.aside import Aside
from sgcd.act.environment import Opening, Private, Reply, Stage
from sgcd.act.rows import load, read_tasks, reset_arguments
from sgcd.act.tools import Tool, tools_of
from sgcd.act.user import User
from sgcd.errors import EnvironmentFault
from sgcd.records import Call, Message, Said, Task, Verdict


class OwnEnvironment:
    """One play of one task with a class in the shape of TRL's `environment_factory`.

    `reset(**row)` begins, and what it returns is added to the row's prompt; every other public method is a tool; a
    policy that calls none has answered. A `user`, where there is one, hears that and answers back, until it has had
    enough. Then `get_reward()` judges, or the function that the row names as its verifier,
    which is given the object and the policy's last words. `close()` is called at the end where there is one. Methods
    may be async; others run on a thread.
    """

    def __init__(
        self, plain: type[Any], tools: Mapping[str, Tool], told: settings.OwnEnvironment, user: User | None = None
    ) -> None:
        self._plain = plain
        self._user = user
        self._talk: list[Message] = []
        self._seed = 0
        self._tools = tools
        self._told = told
        self._aside = Aside()
        self._object: Any = None
        self._row: Mapping[str, Any] = {}
        self._last_words = ""

    async def open(self, task: Task, seed: int) -> Opening:
        self._row, self._seed = task.row, seed
        self._object = await self._aside.run(self._plain)
        begun = await self._call(self._object.reset, **reset_arguments(self._plain, task.row))
        messages = opening_messages(self._told.system, task.row.get("prompt", []), begun)
        system = [index for index, message in enumerate(messages) if message["role"] == "system"]
        self._talk = [message for message in messages if message["role"] != "system"]
        first = self._first(messages)
        schemas = tuple(tool.schema for tool in self._tools.values())
        return Opening(tuple(messages), schemas, harness=system[-1] if system else len(messages) - 1, user=first)

    async def reply(self, said: Said) -> Reply:
        self._talk.append({"role": "assistant", "content": said.text})
        if not said.calls:
            self._last_words = said.text
            return Reply(user=partial(self._ask, self._user)) if self._user else Reply(done=True)
        answers = [await self._observe(call) for call in said.calls]
        return Reply(tuple(message for message, _ in answers), failed=tuple(failed for _, failed in answers))

    def _first(self, messages: Sequence[Message]) -> Callable[[], Awaitable[Reply]] | None:
        """Who begins where the task says nothing by itself."""
        if self._talk:
            return None
        if not self._user:
            raise ValueError("the task says nothing: its row has no prompt and reset() returned none")
        if not messages:
            raise ValueError("the user says the first words, and none are the harness's: set environment.system")
        return partial(self._ask, self._user)

    async def _ask(self, user: User) -> Reply:
        spoken = await user.say(str(self._row["user"]), self._talk, self._seed)
        if not (spoken.text or self._talk):
            raise ValueError("the user left before it had said a word")
        if not spoken.text:
            return Reply(done=True)
        words = {"role": "user", "content": spoken.text}
        self._talk.append(words)
        return Reply((words,), done=spoken.over)

    async def verify(self) -> Verdict:
        if "verifier" in self._row:
            name = str(self._row["verifier"])
            reward = await self._call(load("verifier", name), self._object, self._last_words)
        else:
            name, reward = "get_reward()", await self._call(self._object.get_reward)
        if not hasattr(reward, "__float__"):
            raise TypeError(f"{name} returned {reward!r}, expected a number")
        value = float(reward)
        return Verdict(value, success=value >= self._told.success)

    def private(self) -> Private:
        told: Private = self._row.get("private", ())
        return told if isinstance(told, Mapping) else tuple(told)

    async def close(self) -> None:
        close = getattr(self._object, "close", None)
        if callable(close):
            if self._aside.overdue and not inspect.iscoroutinefunction(close):
                self._aside.order(close)  # after the call that hangs, should it ever return
            else:
                await self._call(close)
        self._aside.close()

    async def _observe(self, call: Call) -> tuple[Message, bool]:
        """What the policy sees of a call, and whether it failed."""
        fitting = self._tools[call.name].fit(call.arguments)
        failed = isinstance(fitting, str)
        if isinstance(fitting, str):
            content = f"error : {fitting}"
        else:
            try:
                content = as_text(await self._call(getattr(self._object, call.name), **fitting))
            except Exception as problem:
                failed, content = True, f"error : {str(problem) or type(problem).__name__}"
        return {"role": "tool", "name": call.name, "content": content}, failed

    async def _call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(*args, **kwargs)
        answer = await self._aside.run(partial(method, *args, **kwargs))
        return await answer if inspect.isawaitable(answer) else answer


def own_stage(told: settings.OwnEnvironment, user: User | None = None) -> Stage:
    """The class and its tasks, all of them checked. `user` plays the person of each row, where the recipe wants one."""
    plain = load("environment.class", told.class_)
    if not isinstance(plain, type):
        raise EnvironmentFault(f"environment.class: {told.class_} is not a class; expected module:Class")
    if not callable(getattr(plain, "reset", None)):
        raise EnvironmentFault(f"environment.class: {told.class_} has no reset(); expected a method that begins a task")
    try:
        inspect.signature(plain).bind()
    except TypeError as problem:
        raise EnvironmentFault(
            f"environment.class: {told.class_} cannot be made without arguments ({problem}); give each a default"
        ) from problem
    tools = tools_of(plain)
    files = {"train": ("tasks", told.tasks), "dev": ("dev", told.dev), "test": ("test", told.test)}
    splits = {
        split: read_tasks(f"environment.{key}", path, plain, user is not None)
        for split, (key, path) in files.items()
        if path is not None
    }
    return Stage(lambda: OwnEnvironment(plain, tools, told, user), splits)


def opening_messages(system: str, prompt: str | list[Message], begun: Any) -> list[Message]:
    """The system message, the row's prompt, and what reset() returned: after the last words of the user.

    >>> opening_messages("be kind", "guess", "five letters")
    [{'role': 'system', 'content': 'be kind'}, {'role': 'user', 'content': 'guess\\n\\nfive letters'}]
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if begun is not None:
        if messages and messages[-1]["role"] == "user":
            messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n\n{as_text(begun)}"}
        else:
            messages.append({"role": "user", "content": as_text(begun)})
    return messages


def as_text(value: Any) -> str:
    """Strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
