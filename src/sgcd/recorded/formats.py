"""The rows of other tools' files as rollouts: messages, tools, a reward, and what says which rows are siblings."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

from sgcd.errors import DataError

Json = Mapping[str, Any]
_TASK_FIELDS = ("task_id", "task", "problem_id", "prompt_id", "example_id", "group_id", "group")
_REWARD_FIELDS = ("reward", "score", "success")
_ERROR_MARK = "error"
"""What a tool's answer begins with when a call failed, unless its message says so."""
_INSPECT_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Inspect's letters: correct, partially correct, incorrect, no answer."""
_TRL_COLUMNS = frozenset({"step", "prompt", "completion", "advantage", "images"})
"""Columns of TRL's table of completions that are no reward."""
_LIMITS = {"max_steps": "turn_limit", "max_turns": "turn_limit", "message": "turn_limit", "length": "token_limit"}


@dataclass(frozen=True, slots=True)
class RecordedRollout:
    """One rollout as it was recorded. Messages and tools are as in OpenAI's chat data; nothing is checked yet."""

    key: str
    """Equal for siblings."""
    task: str
    """Its task, for people."""
    reward: float
    messages: Sequence[Json]
    tools: Sequence[Json] = ()
    category: str = "action"
    private: Sequence[str] = ()
    end: str = ""
    """turn_limit or token_limit where a limit ended it."""


def read_row(row: Any, shared: Json | None = None) -> RecordedRollout:
    """The rollout in a row of a known format; raises `DataError` with the field that is wrong.

    `shared` is what a file of several rows has once: the domain's policy and tools.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"expected an object with messages and a reward, got {_short(row)}")
    row = cast("Json", row)
    read = next((read for is_format, read in _FORMATS if is_format(row)), None)
    if read is None:
        fields = ", ".join(map(str, list(row)[:8])) or "none"
        raise DataError(
            "messages: missing; expected messages and a reward (OpenAI's chat data), traj (tau-bench), prompt and "
            f"completion (TRL, verifiers), input and output (verl) or an inspect sample; its fields are {fields}"
        )
    return read(row, shared or {})


def is_failed_call(message: Json) -> bool:
    """Whether a tool's message says that the call failed."""
    flag = message.get("error", message.get("is_error"))
    if isinstance(flag, bool):
        return flag
    if isinstance(flag, Mapping):
        return True
    content = message.get("content")
    return isinstance(content, str) and content[:16].lstrip().casefold().startswith(_ERROR_MARK)


def _read_chat(row: Json, shared: Json) -> RecordedRollout:
    """OpenAI's chat data with a reward."""
    return _build(row, _list(row, "messages"), _find_reward(row))


def _read_tau_bench(row: Json, shared: Json) -> RecordedRollout:
    return _build(row, _list(row, "traj"), _number(row, "reward"))


def _read_tau2(row: Json, shared: Json) -> RecordedRollout:
    """A simulation of tau2-bench. The user's own tool calls are left out, the domain's policy is the system message."""
    reward_info = row.get("reward_info")
    if not isinstance(reward_info, Mapping):
        raise DataError(f"reward_info: expected an object with a reward, got {_short(reward_info)}")
    domain = _mapping(_mapping(shared.get("info")).get("environment_info"))
    system = [{"role": "system", "content": domain["policy"]}] if domain.get("policy") else []
    messages = [*system, *(_tau2_message(one) for one in _tau2_messages(_list(row, "messages")))]
    end = _LIMITS.get(str(row.get("termination_reason")), "")
    return _build(row, messages, _number(cast("Json", reward_info), "reward"), tools=domain.get("tool_defs"), end=end)


def _tau2_messages(messages: Sequence[Any]) -> Iterator[Json]:
    for message in messages:
        inner = _mapping(message).get("tool_messages")
        for one in cast("list[Any]", inner) if isinstance(inner, list) else [message]:
            if _mapping(one).get("requestor") != "user":
                yield _mapping(one)


def _tau2_message(message: Json) -> Json:
    calls = message.get("tool_calls")
    if not calls or message.get("role") != "assistant":
        return {**message, "tool_calls": None}
    return {**message, "tool_calls": [_native_call(call.get("name"), call.get("arguments")) for call in calls]}


def _read_inspect(row: Json, shared: Json) -> RecordedRollout:
    """A sample of a log of Inspect; the reward is its first score."""
    name, score = next(iter(cast("Json", row["scores"]).items()), ("", None))
    value = _mapping(score).get("value")
    reward = _INSPECT_VALUES.get(value, value) if isinstance(value, str) else value
    if not isinstance(reward, int | float):
        raise DataError(f"scores.{name or 'value'}: expected a number or one of C, P, I, N, got {_short(value)}")
    messages = [_inspect_message(_mapping(message)) for message in _list(row, "messages")]
    evaluation = _mapping(shared.get("eval"))
    task, limit = f"{evaluation.get('task', 'task')} {row.get('id')}", str(_mapping(row.get("limit")).get("type"))
    return _build(
        {**row, "task_id": task, "model": evaluation.get("model")}, messages, float(reward), end=_LIMITS.get(limit, "")
    )


def _inspect_message(message: Json) -> Json:
    """Calls have their function's name in `function`; thinking is a part of the content."""
    content, extra = message.get("content"), dict[str, Any]()
    if isinstance(content, list):
        parts = [_mapping(part) for part in cast("list[Any]", content)]
        extra["reasoning_content"] = "".join(str(part["reasoning"]) for part in parts if "reasoning" in part) or None
        extra["content"] = "".join(str(part.get("text", "")) for part in parts)
    if calls := message.get("tool_calls"):
        extra["tool_calls"] = [_native_call(call.get("function"), call.get("arguments")) for call in calls]
    return {**message, **extra}


def _read_verifiers(row: Json, shared: Json) -> RecordedRollout:
    """A row of verifiers' results: prompt and completion are messages, or texts; calls may be JSON texts."""
    messages = [*_as_messages(row, "prompt", "user"), *_as_messages(row, "completion", "assistant")]
    tools = row.get("tool_defs") or _mapping(row.get("info")).get("oai_tools")
    row = {**row, "task": None} if "example_id" in row else row
    return _build(row, messages, _find_reward(row), tools=tools)


def _read_trl(row: Json, shared: Json) -> RecordedRollout:
    """A row of TRL's table of completions. The reward is the sum of its reward columns, as with equal weights."""
    rewards = {name: value for name, value in row.items() if name not in _TRL_COLUMNS and _is_number(value)}
    if not rewards:
        raise DataError("reward: missing; expected a column for each reward function beside prompt and completion")
    messages = [*_as_messages(row, "prompt", "user"), *_as_messages(row, "completion", "assistant")]
    messages = [_without_null_arguments(message) for message in messages]
    return _build(row, messages, float(sum(rewards.values())), scope=f"step {row['step']} ")


def _without_null_arguments(message: Json) -> Json:
    """A table gives every call the arguments of all calls, null where a call has none."""
    native: list[Json] = []
    for call in message.get("tool_calls") or ():
        function = _mapping(call.get("function"))
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            given = cast("Json", arguments)
            arguments = {name: value for name, value in given.items() if value is not None}
        native.append(_native_call(function.get("name"), arguments))
    return {**message, "tool_calls": native or None}


def _read_verl(row: Json, shared: Json) -> RecordedRollout:
    """A row of verl's dump of rollouts. It has texts; each is one message."""
    messages = [*_as_messages(row, "input", "user"), *_as_messages(row, "output", "assistant")]
    return _build(row, messages, _number(row, "score"), scope=f"step {row.get('step', 0)} ")


_FORMATS: tuple[tuple[Callable[[Json], bool], Callable[[Json, Json], RecordedRollout]], ...] = (
    (lambda row: "traj" in row, _read_tau_bench),
    (lambda row: "messages" in row and "reward_info" in row, _read_tau2),
    (lambda row: "messages" in row and isinstance(row.get("scores"), Mapping), _read_inspect),
    (lambda row: "messages" in row, _read_chat),
    (lambda row: {"prompt", "completion", "advantage", "step"} <= row.keys(), _read_trl),
    (lambda row: {"prompt", "completion"} <= row.keys(), _read_verifiers),
    (lambda row: {"input", "output", "score"} <= row.keys(), _read_verl),
)
"""What tells a format from the others, and its reader; the first that fits."""


def _build(
    row: Json,
    messages: Sequence[Any],
    reward: float,
    *,
    tools: Any = None,
    scope: str = "",
    end: str = "",
) -> RecordedRollout:
    """What all formats share: the task by a field, or else by the prompt; rows of other models are no siblings."""
    texts = [_mapping(message) for message in messages]
    named = next((str(row[name]) for name in _TASK_FIELDS if isinstance(row.get(name), str | int)), None)
    task = named if named is not None else f"prompt {_hash(_prompt_of(texts))}"
    model = row.get("model")
    given_tools = tools if tools is not None else row.get("tools")
    private = row.get("private")
    return RecordedRollout(
        key=f"{scope}{task} of {model}" if isinstance(model, str) else scope + task,
        task=scope + task,
        reward=reward,
        messages=texts,
        tools=[_mapping(tool) for tool in _parse_if_text(given_tools) or ()],
        category=str(row.get("category") or "action"),
        private=[str(value) for value in cast("list[Any]", private)] if isinstance(private, list) else (),
        end=end,
    )


def _prompt_of(messages: Sequence[Json]) -> list[Any]:
    """The messages before the first turn of the assistant."""
    first = next((i for i, message in enumerate(messages) if message.get("role") == "assistant"), len(messages))
    return [[message.get("role"), message.get("content")] for message in messages[:first]]


def _hash(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=5).hexdigest()


def _find_reward(row: Json) -> float:
    name = next((name for name in _REWARD_FIELDS if row.get(name) is not None), _REWARD_FIELDS[0])
    return _number(row, name)


def _number(row: Json, name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or _is_number(value):
        return float(cast("float", value))
    raise DataError(f"{name}: expected a finite number, got {_short(value) if name in row else 'nothing'}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_messages(row: Json, name: str, role: str) -> list[Json]:
    value = row.get(name)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return [_with_parsed_calls(_mapping(message)) for message in _list(row, name)]


def _with_parsed_calls(message: Json) -> Json:
    calls = message.get("tool_calls")
    if not calls:
        return message
    parsed = [_mapping(_parse_if_text(call)) for call in calls]
    native = [call if "function" in call else _native_call(call.get("name"), call.get("arguments")) for call in parsed]
    return {**message, "tool_calls": native}


def _native_call(name: Any, arguments: Any) -> Json:
    return {"function": {"name": name, "arguments": arguments if arguments is not None else {}}}


def _parse_if_text(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _list(row: Json, name: str) -> list[Any]:
    value = row.get(name)
    if isinstance(value, list) and value:
        return cast("list[Any]", value)
    raise DataError(f"{name}: expected a list of messages, got {_short(value)}")


def _mapping(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, Mapping) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
