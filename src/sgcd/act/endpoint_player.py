"""One task played with a chat model that is no policy: its messages and native calls are kept, and no token."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.act.environment import Environment, Reply
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import get_reply, open_task, run_episode, truncate_observations, update_end_reason
from sgcd.act.settings import Limits
from sgcd.act.timeouts import break_rollout_on_error, call_with_timeout
from sgcd.chat.parse_calls import parse_json_call
from sgcd.endpoint.client import Endpoint, RequestOptions
from sgcd.endpoint.completion import Completion, ToolCall
from sgcd.records import Call, Message, ParsedTurn, Rollout, Task, Turn

_MIN_COMPLETION_TOKENS = 16
"""Tokens that an answer is asked for at least; with fewer left the trial has reached its limit."""


@dataclass(slots=True)
class EndpointPlayer:
    """A model at one task."""

    endpoint: Endpoint
    temperature: float | None
    seed: int
    num_completion_tokens: int = 0
    """Tokens of its answers, as its server counts them; what it heard is not counted, since nobody here can."""


async def play_endpoint(
    task: Task, environment: Environment, player: EndpointPlayer, limits: Limits, trial: int
) -> Rollout:
    """Play `task` to its end, under the limits of a policy. What no answer came to makes it broken, by kind."""
    recorder = RolloutRecorder(task, trial, player.seed)
    return await run_episode(recorder, environment, limits, lambda: _converse(recorder, environment, player, limits))


async def _converse(
    recorder: RolloutRecorder, environment: Environment, player: EndpointPlayer, limits: Limits
) -> None:
    initial = await open_task(recorder, environment, limits)
    with break_rollout_on_error("open"):
        tool_names = {str(tool["function"]["name"]) for tool in initial.tools}
        recorder.tools = initial.tools
        recorder.messages.extend(initial.messages)
    while recorder.end_reason is None:
        options = RequestOptions(
            player.temperature, player.seed, initial.tools, limits.tokens - player.num_completion_tokens
        )
        completion = await call_with_timeout(
            "model", lambda options=options: player.endpoint.complete(recorder.messages, options=options), None
        )
        player.num_completion_tokens += completion.num_tokens
        turn = turn_from_completion(completion)
        recorder.turns.append(Turn(0, 0, turn.calls, turn.malformed))
        recorder.messages.append(message_from_completion(completion))
        if not completion.is_complete:  # not carried out, as with a policy
            recorder.end_reason = "token_limit"
            recorder.count_truncation("tokens")
            return
        reply = await get_reply(recorder, turn, tool_names, environment, limits)
        with break_rollout_on_error("reply"):
            _append_reply(recorder, turn, completion.calls, reply, limits)
        if recorder.end_reason is None and limits.tokens - player.num_completion_tokens < _MIN_COMPLETION_TOKENS:
            recorder.end_reason = "token_limit"
            recorder.count_truncation("tokens")


def _append_reply(
    recorder: RolloutRecorder, turn: ParsedTurn, calls: Sequence[ToolCall], reply: Reply, limits: Limits
) -> None:
    update_end_reason(recorder, turn, reply, limits)
    recorder.messages.extend(match_tool_replies(calls, truncate_observations(recorder, reply.messages, limits)))


def turn_from_completion(completion: Completion) -> ParsedTurn:
    """What the model said, read as strictly as a policy; a turn that was cut off calls nothing."""
    if not completion.is_complete:
        return ParsedTurn("", completion.text.strip(), ())
    calls = [parse_native_call(call) for call in completion.calls]
    malformed = next((call for call in calls if isinstance(call, str)), "")
    parsed_calls = () if malformed else tuple(call for call in calls if isinstance(call, Call))
    return ParsedTurn("", completion.text.strip(), parsed_calls, malformed)


def parse_native_call(call: ToolCall) -> Call | str:
    """As a policy's call in JSON would be read, or what is wrong with it."""
    name_json = json.dumps({"name": call.name})
    return parse_json_call(f'{name_json[:-1]}, "arguments": {_arguments_json(call)}}}')


def message_from_completion(completion: Completion) -> Message:
    """The answer as it goes back into the conversation. Arguments that are no object go as {}."""
    if not completion.calls:
        return {"role": "assistant", "content": completion.text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": _arguments_json(call) if _is_json_object(_arguments_json(call)) else "{}",
            },
        }
        for call in completion.calls
    ]
    return {"role": "assistant", "content": completion.text, "tool_calls": calls}


def match_tool_replies(calls: Sequence[ToolCall], messages: Sequence[Message]) -> list[Message]:
    """A reply in which each call has its answer; a turn that was refused whole has the same one for all its calls."""
    contents = [str(message["content"]) for message in messages if message["role"] == "tool"]
    if len(contents) != len(calls):
        contents = ["\n".join(contents)] * len(calls)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, contents, strict=True)
    ]
    return [*results, *(message for message in messages if message["role"] != "tool")]


def _arguments_json(call: ToolCall) -> str:
    """Some servers say nothing where a call has no arguments."""
    return call.arguments.strip() or "{}"


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
