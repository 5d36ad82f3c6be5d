"""Make an environment from a plain class whose public methods are tools."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import isfinite, nan
from typing import Any, cast

from sgcd.act import settings
from sgcd.act.environment import InitialMessages, PrivateLiterals, Reply, TaskSuite
from sgcd.act.environments.worker_thread import WorkerThread
from sgcd.act.task_file import UNDECLARED_CATEGORIES, check_judge, load_tasks, reset_arguments
from sgcd.act.tools import Tool, build_tools
from sgcd.act.user import User
from sgcd.errors import EnvironmentFault
from sgcd.load_object import load_class, load_object
from sgcd.records import Call, Message, ParsedTurn, Task, Verdict


class OwnEnvironment:
    """Plays one task with a class in the shape of TRL's `environment_factory`.

    `reset(**row)` begins the task, and what it returns is appended to the row's prompt. Every other public method is a
    tool. A turn without a call is the answer, or, with a simulated user, a message that the user replies to until it
    ends the conversation. Then the rollout is judged by the function that the row names as its verifier, which gets the
    object and the policy's last text; or by those of `environment.reward` or `environment.rewards`, which get the
    object and the row; or by `get_reward()`. A judge returns a number, or several by name. `get_public_facts()` says
    what holds at the end, in words that a reference may use, `get_parts()` the rewards of the parts that have ended
    after each turn, and `close()` is called at the end; a class needs none of them.
    Methods may be async; others run on a thread.
    """

    def __init__(
        self,
        cls: type[Any],
        tools: Mapping[str, Tool],
        config: settings.OwnEnvironmentSettings,
        *,
        user: User | None = None,
    ) -> None:
        self._cls = cls
        self._user = user
        self._conversation: list[Message] = []
        self._seed = 0
        self._tools = tools
        self._config = config
        self._worker = WorkerThread()
        self._instance: Any = None
        self._row: Mapping[str, Any] = {}
        self._last_text = ""
        self._parts: list[dict[str, float]] = []
        self._num_part_turns = 0

    async def open(self, task: Task, seed: int) -> InitialMessages:
        self._row, self._seed = task.row, seed
        self._instance = await self._worker.run(self._cls)
        reset_result = await self._call_method(self._instance.reset, **reset_arguments(self._cls, task.row))
        messages = build_initial_messages(self._config.system, task.row.get("prompt", []), reset_result)
        self._conversation = [message for message in messages if message["role"] != "system"]
        ask_user = self._first_user_message()
        tool_schemas = tuple(tool.schema for tool in self._tools.values())
        return InitialMessages(tuple(messages), tool_schemas, ask_user=ask_user)

    async def reply(self, turn: ParsedTurn) -> Reply:
        self._conversation.append({"role": "assistant", "content": turn.text})
        if not turn.calls:
            self._last_text = turn.text
            await self._note_parts()
            return Reply(ask_user=partial(self._ask_user, self._user)) if self._user else Reply(done=True)
        answers = [await self._run_tool(call) for call in turn.calls]
        await self._note_parts()
        return Reply(tuple(message for message, _ in answers), call_errors=tuple(failed for _, failed in answers))

    def _first_user_message(self) -> Callable[[], Awaitable[Reply]] | None:
        """A request for the user's first message where the task has no message of its own; None where it has."""
        if self._conversation:
            return None
        if not self._user:
            raise ValueError("the task says nothing: its row has no prompt and reset() returned none")
        return partial(self._ask_user, self._user)

    async def _ask_user(self, user: User) -> Reply:
        message = await user.next_message(str(self._row["user"]), self._conversation, self._seed)
        if not (message.text or self._conversation):
            raise ValueError("the user left before it had said a word")
        if not message.text:
            return Reply(done=True)
        user_message = {"role": "user", "content": message.text}
        self._conversation.append(user_message)
        return Reply((user_message,), done=message.is_last)

    async def verify(self) -> Verdict:
        name, reward = await self._judge()
        public_facts = await self._public_facts()
        if isinstance(reward, Mapping) and reward:
            named = cast(Mapping[Any, Any], reward)
            rewards = {str(key): finite_reward(f"{name}, {key}", value) for key, value in named.items()}
            total = weighted_reward(rewards, self._config.reward_weights)
            facts = {"rewards": rewards, **self._part_facts}
            return Verdict(total, success=total >= self._config.success, facts=facts, public_facts=public_facts)
        total = finite_reward(name, reward)
        return Verdict(total, success=total >= self._config.success, facts=self._part_facts, public_facts=public_facts)

    @property
    def _part_facts(self) -> dict[str, Any]:
        """The verdicts by turn, where the class gives any."""
        return {"parts": self._parts} if callable(getattr(self._instance, "get_parts", None)) else {}

    async def _note_parts(self) -> None:
        """Keep the parts that have ended in this turn, each with its reward and the number of its turns."""
        self._num_part_turns += 1
        get_parts = getattr(self._instance, "get_parts", None)
        rewards = [*await self._call_method(get_parts)] if callable(get_parts) else []
        for reward in rewards[len(self._parts) :]:
            self._parts.append({"reward": finite_reward("get_parts()", reward), "turns": self._num_part_turns})
            self._num_part_turns = 0

    async def _public_facts(self) -> dict[str, bool]:
        get_public_facts = getattr(self._instance, "get_public_facts", None)
        facts: Any = await self._call_method(get_public_facts) if callable(get_public_facts) else {}
        known = cast(Mapping[Any, Any], facts) if isinstance(facts, Mapping) else {facts: None}
        for fact, holds in known.items():
            if not (isinstance(fact, str) and isinstance(holds, bool)):
                raise TypeError(
                    f"get_public_facts() returned {facts!r}, expected true or false by words: {{'door open': True}}"
                )
        return dict(known)

    async def _judge(self) -> tuple[str, Any]:
        """The judge's name, and the reward that it returned: a number, or several by name."""
        config = self._config
        if "verifier" in self._row:
            name = str(self._row["verifier"])
            return name, await self._call_method(load_object("verifier", name), self._instance, self._last_text)
        if config.rewards:
            return "environment.rewards", {
                key: await self._call_method(load_object("environment.rewards", name), self._instance, self._row)
                for key, name in config.rewards.items()
            }
        if config.reward:
            judge = load_object("environment.reward", config.reward)
            return config.reward, await self._call_method(judge, self._instance, self._row)
        return "get_reward()", await self._call_method(self._instance.get_reward)

    def private(self) -> PrivateLiterals:
        literals: PrivateLiterals = self._row.get("private", ())
        return literals if isinstance(literals, Mapping) else tuple(literals)

    async def close(self) -> None:
        close = getattr(self._instance, "close", None)
        if callable(close):
            if self._worker.has_abandoned_call and not inspect.iscoroutinefunction(close):
                self._worker.submit(close)  # after the call that hangs, should it ever return
            else:
                await self._call_method(close)
        self._worker.close()

    async def _run_tool(self, call: Call) -> tuple[Message, bool]:
        """Run one call; returns its tool message, and whether it failed."""
        fitting = self._tools[call.name].validate_arguments(call.arguments)
        failed = isinstance(fitting, str)
        if isinstance(fitting, str):
            content = f"error : {fitting}"
        else:
            try:
                content = as_text(await self._call_method(getattr(self._instance, call.name), **fitting))
            except Exception as problem:
                failed, content = True, f"error : {str(problem) or type(problem).__name__}"
        return {"role": "tool", "name": call.name, "content": content}, failed

    async def _call_method(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(*args, **kwargs)
        result = await self._worker.run(partial(method, *args, **kwargs))
        return await result if inspect.isawaitable(result) else result


def finite_reward(name: str, value: Any) -> float:
    """A judge's answer as a number; it may be a NumPy or a torch scalar."""
    reward = float(value) if hasattr(value, "__float__") else nan
    if not isfinite(reward):
        raise TypeError(f"{name} returned {value!r}, expected a finite number")
    return reward


def weighted_reward(rewards: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of named rewards, each of weight 1 where none is given.

    >>> weighted_reward({"correct": 1.0, "brief": 0.5}, {"brief": 0.2})
    1.1
    """
    if unknown := set(weights) - set(rewards):
        raise ValueError(
            f"environment.reward_weights names {', '.join(sorted(unknown))}; the rewards are {', '.join(rewards)}"
        )
    return sum(weights.get(name, 1.0) * reward for name, reward in rewards.items())


def own_tasks(config: settings.OwnEnvironmentSettings, user: User | None = None) -> TaskSuite:
    """Load the class and its tasks, and check all of them. `user` is the simulated user, where the recipe has one."""
    cls = load_class(
        "environment.class",
        config.class_,
        method="reset",
        expected="a method that begins a task",
        fault=EnvironmentFault,
    )
    if config.reward and config.rewards:
        raise EnvironmentFault("environment: reward and rewards are both set; one function or several: leave one out")
    judges = {"environment.reward": config.reward} if config.reward else {}
    judges |= {f"environment.rewards.{key}": name for key, name in config.rewards.items()}
    for key, name in judges.items():
        check_judge(key, name, "the object and the task's row")
    tools, has_reward = build_tools(cls), callable(getattr(cls, "get_reward", None)) or bool(judges)
    declared = {name: category.needs_tool for name, category in config.categories.items()}
    files = {"train": ("tasks", config.tasks), "dev": ("dev", config.dev), "test": ("test", config.test)}
    splits = {
        split: load_tasks(
            f"environment.{key}",
            path,
            cls,
            categories=UNDECLARED_CATEGORIES | declared,
            has_reward=has_reward,
            has_user=user is not None,
        )
        for split, (key, path) in files.items()
        if path is not None
    }
    return TaskSuite(lambda: OwnEnvironment(cls, tools, config, user=user), splits)


def build_initial_messages(system: str, prompt: str | list[Message], reset_result: Any) -> list[Message]:
    """The system message and the row's prompt; what reset() returned is appended to the last user message.

    >>> build_initial_messages("be kind", "guess", "five letters")
    [{'role': 'system', 'content': 'be kind'}, {'role': 'user', 'content': 'guess\\n\\nfive letters'}]
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if reset_result is not None:
        if messages and messages[-1]["role"] == "user":
            messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n\n{as_text(reset_result)}"}
        else:
            messages.append({"role": "user", "content": as_text(reset_result)})
    return messages


def as_text(value: Any) -> str:
    """A string unchanged, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
