"""Play one task with a chat model behind an endpoint; the record has its messages and native calls, and no tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.act.environment import Environment
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import open_task, take_reply, verify_and_close
from sgcd.act.settings import Limits
from sgcd.act.timeouts import break_rollout_on_error, call_with_timeout
from sgcd.chat.call_formats import parse_json_call
from sgcd.endpoint.client import Endpoint, RequestOptions
from sgcd.endpoint.completion import Completion, ToolCall
from sgcd.records import Call, Message, ParsedTurn, Rollout

_MIN_COMPLETION_TOKENS = 16
"""The smallest token limit that a completion is requested with; with fewer left the trial has reached its limit."""


@dataclass(slots=True)
class EndpointPlayer:
    """A chat model that plays one task."""

    endpoint: Endpoint
    temperature: float | None
    num_completion_tokens: int = 0
    """Tokens of its completions, as the server counts them; observations are not counted, as no tokenizer is known."""
    num_prompt_tokens: int = 0
    """Tokens of its requests, as the server counts them: each has the whole conversation so far."""


async def play_endpoint(
    recorder: RolloutRecorder, environment: Environment, player: EndpointPlayer, *, limits: Limits
) -> Rollout:
    """Play the recorder's task to its end, under the limits of a policy.

    A request that fails makes the rollout broken, by kind.
    """
    async with verify_and_close(recorder, environment, limits):
        initial, num_truncated = await open_task(recorder, environment, limits)
        recorder.add_truncation("observation", num_truncated)
        with break_rollout_on_error("open"):
            tool_names = initial.tool_names
            recorder.add_prompt(initial)
        while recorder.end_reason is None:
            max_tokens = limits.tokens - player.num_completion_tokens
            options = RequestOptions(player.temperature, recorder.seed, initial.tools, max_tokens)
            completion = await call_with_timeout(
                "model", lambda options=options: player.endpoint.complete(recorder.messages, options=options), None
            )
            player.num_completion_tokens += completion.num_tokens
            player.num_prompt_tokens += completion.num_prompt_tokens
            turn = turn_from_completion(completion)
            recorder.add_turn(turn, message_from_completion(completion))
            if not completion.is_complete:  # not carried out, as with a policy
                recorder.finish("token_limit")
                break
            end_reason, messages = await take_reply(turn, tool_names, recorder, environment, limits=limits)
            with break_rollout_on_error("reply"):
                recorder.add_reply(match_tool_replies(completion.calls, messages))
            if end_reason is None and limits.tokens - player.num_completion_tokens < _MIN_COMPLETION_TOKENS:
                recorder.finish("token_limit")
    return recorder.build_rollout()


def turn_from_completion(completion: Completion) -> ParsedTurn:
    """Parse a completion as strictly as a policy's turn; a completion that was cut off has no calls."""
    if not completion.is_complete:
        return ParsedTurn("", completion.text.strip(), ())
    calls = [parse_native_call(call) for call in completion.calls]
    malformed = next((call for call in calls if isinstance(call, str)), "")
    parsed_calls = () if malformed else tuple(call for call in calls if isinstance(call, Call))
    return ParsedTurn("", completion.text.strip(), parsed_calls, malformed)


def parse_native_call(call: ToolCall) -> Call | str:
    """Parse a native call as a policy's call in JSON; returns a sentence where it is malformed."""
    name_json = json.dumps({"name": call.name})
    return parse_json_call(f'{name_json[:-1]}, "arguments": {_arguments_json(call)}}}')


def message_from_completion(completion: Completion) -> Message:
    """The completion as a message of the conversation. Arguments that are no JSON object become {}."""
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
    """Give each call its own tool message; a refused turn gives all its calls the same content."""
    contents = [str(message["content"]) for message in messages if message["role"] == "tool"]
    if len(contents) != len(calls):
        contents = ["\n".join(contents)] * len(calls)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, contents, strict=True)
    ]
    return [*results, *(message for message in messages if message["role"] != "tool")]


def _arguments_json(call: ToolCall) -> str:
    """Some servers send an empty string where a call has no arguments."""
    return call.arguments.strip() or "{}"


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
