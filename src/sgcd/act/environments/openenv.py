"""An OpenEnv server as an environment: a session over its WebSocket for each rollout."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from sgcd.act.environment import InitialMessages, PrivateLiterals, Reply, TaskSuite
from sgcd.act.environments.own import as_text, build_initial_messages, finite_reward
from sgcd.act.settings import OpenenvSettings
from sgcd.act.task_file import UNDECLARED_CATEGORIES, load_tasks, reset_arguments
from sgcd.act.user import User
from sgcd.records import Call, Message, ParsedTurn, Task, Verdict

_Json = dict[str, Any]
ACT = "act"
"""The tool of a server that has no tools but one type of action; its arguments are the action's fields."""
_MAX_MESSAGE_BYTES = 2**26
_FULL_TRIES, _FULL_WAIT = 10, 0.3
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServerFull(RuntimeError):
    """The server has no session left."""


class ServerRows:
    """What a row's keys are checked against: the server's reset takes whatever it knows of them."""

    def reset(self, **row: Any) -> None: ...


class OpenenvSession:
    """The messages of one session. The server answers each with one."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.rstrip("/"))
        secure = parts.scheme in ("https", "wss")
        self._is_loopback = parts.hostname in _LOOPBACK
        self._socket_url = parts._replace(scheme="wss" if secure else "ws", path=f"{parts.path}/ws").geturl()
        self._schema_url = parts._replace(scheme="https" if secure else "http", path=f"{parts.path}/schema").geturl()
        self._socket: Any = None

    async def connect(self) -> None:
        from websockets.asyncio.client import connect

        proxy: dict[str, Any] = {"proxy": None} if self._is_loopback else {}
        try:
            self._socket = await connect(self._socket_url, max_size=_MAX_MESSAGE_BYTES, **proxy)
        except OSError as problem:
            raise ConnectionError(
                f"environment.url: no OpenEnv server answers at {self._socket_url} ({problem}); start it, or name "
                "another one"
            ) from problem

    async def request(self, kind: str, data: _Json) -> _Json:
        """The data of the answer to a message; raises RuntimeError where it is an error."""
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):  # a server without a free session says so and closes: its answer is there
            await self._socket.send(json.dumps({"type": kind, "data": data}))
        answer: _Json = json.loads(await self._socket.recv())
        if answer["type"] == "error":
            message = str(answer["data"].get("message"))
            raise ServerFull(message) if answer["data"].get("code") == "CAPACITY_REACHED" else RuntimeError(message)
        return answer["data"]

    async def list_tools(self) -> tuple[tuple[_Json, ...], bool]:
        """The schemas of the server's tools, and whether they are MCP tools and not one type of action."""
        data = await self.request("mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        if "result" in data:
            return tuple(mcp_tool_schema(tool) for tool in data["result"]["tools"]), True
        schemas = await asyncio.get_running_loop().run_in_executor(None, self._read_schemas)
        return (action_schema(schemas["action"]),), False

    def _read_schemas(self) -> _Json:
        opener = build_opener(ProxyHandler({})) if self._is_loopback else build_opener()
        with opener.open(self._schema_url) as answer:
            return json.load(answer)

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None


class OpenenvEnvironment:
    """Plays one task in a session of its own.

    The row goes to the server's reset, and what that returns is appended to the row's prompt. The tools are the
    server's MCP tools, or `act` where it has one type of action. The reward is the sum over all steps. A turn without a
    call ends the rollout, and so does the server's own end.
    """

    def __init__(self, settings: OpenenvSettings) -> None:
        self._settings = settings
        self._session = OpenenvSession(settings.url)
        self._has_mcp_tools = False
        self._reward = 0.0
        self._is_done = False
        self._row: Mapping[str, Any] = {}

    async def open(self, task: Task, seed: int) -> InitialMessages:
        """`seed` is the rollout's own, and siblings must begin alike: only the row's seed goes to the server."""
        self._row = task.row
        tools, self._has_mcp_tools = await self._begin_session()
        data = await self._session.request("reset", reset_arguments(ServerRows, task.row))
        self._note(data)
        begun = observation_text(data["observation"]) or None
        messages = build_initial_messages(self._settings.system, task.row.get("prompt", []), begun)
        if not any(message["role"] == "user" for message in messages):
            raise ValueError("the task says nothing: its row has no prompt and the server's reset returned no text")
        return InitialMessages(tuple(messages), tools)

    async def _begin_session(self) -> tuple[tuple[_Json, ...], bool]:
        """Connect and list the tools. A full server is tried again: it gives a session back a moment after its end."""
        full = None
        for _ in range(_FULL_TRIES):
            await self._session.connect()
            try:
                return await self._session.list_tools()
            except ServerFull as problem:
                full = problem
            await self._session.close()
            await asyncio.sleep(_FULL_WAIT)
        raise RuntimeError(f"{full}; start the server with more (max_concurrent_envs), or lower sampler.slots")

    async def reply(self, turn: ParsedTurn) -> Reply:
        if not turn.calls:
            return Reply(done=True)
        answers = [await self._call(call) for call in turn.calls]
        messages = tuple(message for message, _ in answers)
        return Reply(messages, done=self._is_done, call_errors=tuple(failed for _, failed in answers))

    async def _call(self, call: Call) -> tuple[Message, bool]:
        """Take one step; returns its tool message, and whether it failed. After the end no step is taken."""
        if self._is_done:
            return {"role": "tool", "name": call.name, "content": "error : the task is over"}, True
        action = {"type": "call_tool", "tool_name": call.name, "arguments": dict(call.arguments)}
        try:
            data = await self._session.request("step", action if self._has_mcp_tools else dict(call.arguments))
        except RuntimeError as problem:
            content, failed = f"error : {problem}", True
        else:
            self._note(data)
            content, failed = (
                call_result(data["observation"])
                if self._has_mcp_tools
                else (
                    observation_text(data["observation"]),
                    False,
                )
            )
        return {"role": "tool", "name": call.name, "content": content}, failed

    def _note(self, data: _Json) -> None:
        reward = data.get("reward")
        self._reward += 0.0 if reward is None else finite_reward("the server's step", reward)
        self._is_done = bool(data.get("done"))

    async def verify(self) -> Verdict:
        return Verdict(self._reward, success=self._reward >= self._settings.success)

    def private(self) -> PrivateLiterals:
        literals: PrivateLiterals = self._row.get("private", ())
        return literals if isinstance(literals, Mapping) else tuple(literals)

    async def close(self) -> None:
        await self._session.close()


def openenv_tasks(settings: OpenenvSettings, user: User | None = None) -> TaskSuite:
    """Load the tasks and check all of them; the server is not called."""
    import_module("websockets")
    declared = {name: category.needs_tool for name, category in settings.categories.items()}
    files = {"train": ("tasks", settings.tasks), "dev": ("dev", settings.dev), "test": ("test", settings.test)}
    splits = {
        split: load_tasks(f"environment.{key}", path, ServerRows, categories=UNDECLARED_CATEGORIES | declared)
        for split, (key, path) in files.items()
        if path is not None
    }
    return TaskSuite(lambda: OpenenvEnvironment(settings), splits)


def mcp_tool_schema(tool: _Json) -> _Json:
    """An MCP tool in the shape that chat templates expect."""
    parameters: _Json = tool.get("inputSchema") or tool.get("input_schema") or {"type": "object", "properties": {}}
    described = {"name": tool["name"], "description": tool.get("description") or "", "parameters": parameters}
    return {"type": "function", "function": described}


def action_schema(schema: _Json) -> _Json:
    """The tool `act`, whose arguments are an action's fields but for its metadata.

    >>> action_schema({"title": "Move", "properties": {"to": {"type": "string"}, "metadata": {}}})["function"]["name"]
    'act'
    """
    properties = {name: value for name, value in schema.get("properties", {}).items() if name != "metadata"}
    required = [name for name in schema.get("required", []) if name in properties]
    parameters: _Json = {"type": "object", "properties": properties, "required": required}
    if "$defs" in schema:
        parameters["$defs"] = schema["$defs"]
    description = schema.get("description") or f"Take one step: {schema.get('title', 'an action')}."
    return {"type": "function", "function": {"name": ACT, "description": description, "parameters": parameters}}


def observation_text(observation: Mapping[str, Any]) -> str:
    """What the policy reads of an observation: its only text, or its fields as JSON. Metadata and nulls are left out.

    >>> observation_text({"text": "a room", "metadata": {"step": 1}})
    'a room'
    >>> observation_text({"text": "a room", "exits": 2})
    '{"text": "a room", "exits": 2}'
    """
    fields = {name: value for name, value in observation.items() if name != "metadata" and value is not None}
    texts = [*fields.values()]
    if len(texts) == 1 and isinstance(texts[0], str):
        return texts[0]
    return as_text(fields) if fields else ""


def call_result(observation: Mapping[str, Any]) -> tuple[str, bool]:
    """What an MCP tool answered, and whether that is an error.

    >>> call_result({"result": {"data": 3, "content": []}, "error": None})
    ('3', False)
    >>> call_result({"result": None, "error": {"message": "no such tool"}})
    ('error : no such tool', True)
    """
    if error := observation.get("error"):
        return f"error : {error['message']}", True
    result = observation.get("result")
    if not isinstance(result, Mapping):
        return as_text(result), False
    fields = cast(Mapping[str, Any], result)
    parts: list[_Json] = fields.get("content") or []
    texts = [str(part["text"]) for part in parts if part.get("type") == "text"]
    if fields.get("is_error"):
        return f"error : {' '.join(texts)}", True
    return as_text(fields["data"]) if fields.get("data") is not None else "\n".join(texts) or as_text(fields), False
