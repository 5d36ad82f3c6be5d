"""Reads TRL's completions as rollouts: the same ids, cut into turns, with the calls that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from json import dumps
from math import isfinite
from typing import Any

import numpy as np

from sgcd.chat import Chat
from sgcd.errors import TemplateError
from sgcd.records import Flags, Group, Message, ParsedTurn, Rollout, Task, TokenIds, TokenKinds, Turn, Verdict

_FAILED_CALL = ("{'error':", '{"error":')
"""How TRL writes the result of a tool that raised."""


@dataclass(frozen=True, slots=True)
class TrlCompletion:
    """One completion as TRL generated it."""

    prompt: Sequence[Message] | str
    messages: Sequence[Message] | str
    """Of the completion: assistant turns and the results of tools."""
    prompt_ids: TokenIds
    ids: TokenIds
    sampled: Flags
    """True on the ids that the policy sampled: TRL's tool mask."""
    reward: float
    row: Mapping[str, Any]
    private: tuple[str, ...] = ()


def read_group(
    completions: Sequence[TrlCompletion], chat: Chat, tools: Sequence[Mapping[str, Any]], success: float
) -> Group:
    """The completions of one prompt as siblings. A reward that is not finite breaks its rollout."""
    first = completions[0]
    task = Task(id=name_task(first), category=str(first.row.get("category", "task")), row={})
    rollouts = [
        read_rollout(one, task, sibling=index, chat=chat, tools=tools, success=success)
        for index, one in enumerate(completions)
    ]
    return Group(
        task,
        tuple(rollout for rollout in rollouts if not rollout.broken),
        tuple(rollout for rollout in rollouts if rollout.broken),
    )


def name_task(completion: TrlCompletion) -> str:
    """The row's `id`, else a hash of the prompt."""
    if "id" in completion.row:
        return str(completion.row["id"])
    return sha256(dumps(completion.prompt, default=str).encode()).hexdigest()[:8]


def read_rollout(
    completion: TrlCompletion,
    task: Task,
    *,
    sibling: int,
    chat: Chat,
    tools: Sequence[Mapping[str, Any]],
    success: float,
) -> Rollout:
    """One completion as a rollout. Its ids are never encoded again."""
    prompt = as_messages(completion.prompt, "user")
    ids, sampled = completion.ids, completion.sampled
    token_kinds: TokenKinds = np.zeros(len(ids), np.uint8)
    turns: list[Turn] = []
    messages: list[Message] = []
    replies = replies_by_turn(as_messages(completion.messages, "assistant"))
    for index, (start, stop) in enumerate(sampled_spans(sampled)):
        parsed, token_kinds[start:stop] = chat.parse_turn(ids[start:stop], tools)
        hit_end_token = chat.has_end_token(ids[start:stop])
        results = replies[index] if index < len(replies) else []
        turns.append(_as_turn(parsed, start, stop, results, hit_end_token))
        messages += [chat.turn_message(ids[start:stop], hit_end_token), *results]
    is_known = isfinite(completion.reward)
    return Rollout(
        task=task.id,
        category=task.category,
        sibling=sibling,
        seed=0,
        prompt=completion.prompt_ids,
        reference_position=find_reference_position(chat, prompt, tools, completion.prompt_ids),
        response=ids,
        response_mask=sampled,
        token_kinds=token_kinds,
        sampling_logprobs=np.zeros(len(ids), np.float32),
        turns=tuple(turns),
        messages=(*prompt, *messages),
        tools=tuple(tools),
        end_reason="answered" if is_known else "broken",
        verdict=Verdict(completion.reward, completion.reward >= success) if is_known else None,
        broken="" if is_known else "reward: not a number",
        private=completion.private,
    )


def find_reference_position(
    chat: Chat, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]], prompt_ids: TokenIds
) -> int:
    """Where a reference goes in TRL's ids of a prompt: before the same end of a message as in sgcd's own.

    Options of the template, such as enable_thinking, may change other ids.
    """
    encoded = chat.encode_prompt(prompt, tools)
    position = encoded.reference_position
    if np.array_equal(encoded.token_ids, prompt_ids):
        return position
    if position < len(encoded.token_ids) and encoded.token_ids[position] == chat.end_id:
        num_ends_before = int((encoded.token_ids[:position] == chat.end_id).sum())
        ends = np.flatnonzero(prompt_ids == chat.end_id)
        if num_ends_before < len(ends):
            return int(ends[num_ends_before])
    raise TemplateError(
        f"{chat.name}: TRL renders the prompt otherwise than the template says, and a reference has no place; expected "
        "a prompt of messages (conversational), and chat_template_kwargs that leave the ends of messages where they are"
    )


def as_messages(content: Sequence[Message] | str, role: str) -> list[Message]:
    """Messages with plain text; tool calls stay where they are."""
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    return [{**message, "content": str(message.get("content") or "")} for message in content]


def sampled_spans(sampled: Flags) -> list[tuple[int, int]]:
    """The stretches [start, stop) that the policy sampled without a break.

    >>> sampled_spans(np.array([1, 1, 0, 1], bool))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sampled.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def replies_by_turn(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages after each assistant turn.

    >>> replies_by_turn([{"role": "assistant"}, {"role": "tool"}, {"role": "assistant"}])
    [[{'role': 'tool'}], []]
    """
    replies: list[list[Message]] = []
    for message in messages:
        if message["role"] == "assistant":
            replies.append([])
        elif replies:
            replies[-1].append(message)
    return replies


def _as_turn(parsed: ParsedTurn, start: int, stop: int, results: Sequence[Message], hit_end_token: bool) -> Turn:
    """Calls of a turn that was cut were not made. A call failed where TRL wrote its error as the result."""
    if not hit_end_token:
        return Turn(start, stop, text=parsed.text)
    has_failed = [str(message.get("content", "")).startswith(_FAILED_CALL) for message in results]
    calls = tuple(
        replace(call, is_error=call.is_error or (index < len(has_failed) and has_failed[index]))
        for index, call in enumerate(parsed.calls)
    )
    return Turn(start, stop, calls, parsed.malformed, text=parsed.text)


def get_private_literals(environment: Any) -> tuple[str, ...]:
    """The literals that an environment declares private, by a method `get_private`."""
    found = environment.get_private() if hasattr(environment, "get_private") else ()
    return (
        tuple(str(value) for values in found.values() for value in values)
        if isinstance(found, Mapping)
        else tuple(found)
    )


def with_trl_ids(completion: TrlCompletion, output: Mapping[str, Any], index: int) -> TrlCompletion:
    """The completion with the ids of its prompt, and with TRL's mask of what the policy sampled."""
    prompt_ids = output["prompt_ids"][index][output["prompt_mask"][index].bool()].cpu().numpy().astype(np.int32)
    sampled = completion.sampled
    if "tool_mask" in output:
        sampled = output["tool_mask"][index][: len(completion.ids)].bool().cpu().numpy()
    return replace(completion, prompt_ids=prompt_ids, sampled=sampled)
