"""Encodes conversations as rollouts, token by token as a policy would have sampled them; counts what is left out."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import numpy as np

from sgcd.chat import Chat
from sgcd.errors import TemplateError
from sgcd.learn.supervised.conversations import Conversation, GivenMessage
from sgcd.records import Call, Message, ParsedTurn, Rollout, TokenIds, TokenKind, TokenKinds, Turn, Verdict


class CannotLearn(Exception):
    """A conversation that is left out: a kind that is counted, and the detail of this one."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


@dataclass(slots=True)
class Examples:
    """Encoded conversations, and how many were left out by kind, with the first of each kind."""

    rollouts: list[Rollout] = field(default_factory=list[Rollout])
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    first_left_out: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def num_tokens(self) -> int:
        """Tokens that are learned."""
        return sum(rollout.num_policy_tokens for rollout in self.rollouts)

    def describe_left_out(self) -> list[str]:
        """A line for each kind."""
        return [
            f"left out, {kind}: {count} (the first: {self.first_left_out[kind]})"
            for kind, count in self.left_out.items()
        ]


def encode_conversations(conversations: Iterable[Conversation], chat: Chat, window: int) -> Examples:
    """Encode what can be learned. A conversation of more than `window` tokens is left out, never cut."""
    examples = Examples()
    for conversation in conversations:
        try:
            rollout = encode_conversation(conversation, chat)
            num_tokens = len(rollout.prompt) + len(rollout.response)
            if num_tokens > window:
                raise CannotLearn(f"longer than {window} tokens", f"{num_tokens}")
        except CannotLearn as problem:
            examples.left_out[problem.kind] = examples.left_out.get(problem.kind, 0) + 1
            examples.first_left_out.setdefault(
                problem.kind, f"{conversation.where}{str(problem).removeprefix(problem.kind)}"
            )
        else:
            examples.rollouts.append(rollout)
    return examples


def encode_conversation(conversation: Conversation, chat: Chat, *, is_to_learn: bool = True) -> Rollout:
    """The conversation up to its last assistant turn, as a rollout that succeeded.

    What stands before the first assistant turn that answers a user is the prompt. The mask is True on the tokens of
    the turns behind it, the end of each turn included, where the turn's weight is one. What is not to be learned may
    hold calls that cannot be read, and calls of unknown tools.
    """
    prompt, rest = _split_prompt(conversation.messages)
    try:
        encoded = chat.encode_prompt([_plain_message(message) for message in prompt], conversation.tools)
        builder = _RolloutBuilder(chat, conversation, [*encoded.messages], is_to_learn)
        for is_turn, group in groupby(rest, lambda message: message.role == "assistant"):
            messages = [*group]
            if not is_turn:
                builder.add_reply(messages)
            elif len(messages) > 1:
                raise CannotLearn("two assistant turns in a row")
            else:
                builder.add_turn(messages[0])
    except TemplateError as problem:
        raise CannotLearn("the template cannot render it", str(problem)) from problem
    if not any(kinds.any() for _, kinds in builder.pieces):
        raise CannotLearn("no assistant turn has a weight")
    return builder.build(encoded.token_ids, encoded.reference_position)


@dataclass(slots=True)
class _RolloutBuilder:
    """Collects the response of one conversation."""

    chat: Chat
    conversation: Conversation
    messages: list[Message]
    is_to_learn: bool = True
    pieces: list[tuple[TokenIds, TokenKinds]] = field(default_factory=list[tuple[TokenIds, TokenKinds]])
    turns: list[Turn] = field(default_factory=list[Turn])

    def add_turn(self, message: GivenMessage) -> None:
        """Add an assistant's turn; one without a weight counts as what came from outside."""
        parsed, ids, kinds = self._encode_turn(message)
        start = sum(len(piece) for piece, _ in self.pieces)
        self.pieces.append((ids, kinds if message.weight else np.zeros(len(ids), np.uint8)))
        self.turns.append(
            Turn(start, start + len(ids), parsed.calls, parsed.malformed, self.chat.roundtrips(ids), text=parsed.text)
        )
        self.messages.append(self.chat.turn_message(ids, True))

    def add_reply(self, messages: Sequence[GivenMessage]) -> None:
        """Add what follows a turn, and the opening of the next one."""
        ids, clean = self.chat.encode_reply([_plain_message(message) for message in messages])
        self.pieces.append((ids, np.full(len(ids), TokenKind.GLUE, np.uint8)))
        self.messages.extend(clean)

    def _encode_turn(self, message: GivenMessage) -> tuple[ParsedTurn, TokenIds, TokenKinds]:
        """A turn's ids. One whose calls stand apart is written as the model's template writes it, and read again."""
        given = _turn_in_parts(message)
        holds_marks = any(mark in given.text for mark in self.chat.call_format.marks)
        is_raw = holds_marks and not given.calls and not given.thinking
        ids = self.chat.encode_turn(given.text if is_raw else self.chat.write_turn(given))
        parsed, kinds = self.chat.parse_turn(ids, self.conversation.tools)
        if not message.weight:
            return parsed, ids, kinds
        if np.isin(ids[:-1], self.chat.end_ids).any():
            raise CannotLearn("a turn holds the token that ends a turn")
        if parsed.malformed and self.is_to_learn:
            raise CannotLearn("a call cannot be read", parsed.malformed)
        if given.calls and parsed.calls != given.calls:
            raise CannotLearn("a call reads differently in this model's format", given.calls[0].name)
        unknown = [call.name for call in parsed.calls if call.name not in self.conversation.tool_names]
        if unknown and self.is_to_learn:
            raise CannotLearn("an unknown tool is called", unknown[0])
        return parsed, ids, kinds

    def build(self, prompt: TokenIds, reference_position: int) -> Rollout:
        kinds = np.concatenate([kinds for _, kinds in self.pieces])
        return Rollout(
            task=self.conversation.where, category="action", sibling=0, seed=0, prompt=prompt,
            reference_position=reference_position, response=np.concatenate([ids for ids, _ in self.pieces]),
            response_mask=kinds != TokenKind.GLUE, token_kinds=kinds,
            sampling_logprobs=np.zeros(len(kinds), np.float32), turns=tuple(self.turns),
            messages=tuple(self.messages), tools=self.conversation.tools, end_reason="answered",
            verdict=Verdict(1.0, True),
        )  # fmt: skip


def _turn_in_parts(message: GivenMessage) -> ParsedTurn:
    """An assistant's message as thinking, text and calls."""
    calls = tuple(_parse_call(call.function.name, call.function.arguments) for call in message.tool_calls or ())
    return ParsedTurn((message.reasoning_content or "").strip(), message.content, calls)


def _parse_call(name: str, arguments: str | dict[str, Any]) -> Call:
    try:
        decoded = json.loads(arguments.strip() or "{}") if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise CannotLearn("a call's arguments are no JSON object", name)
    return Call(name, cast("dict[str, Any]", decoded))


def _split_prompt(messages: Sequence[GivenMessage]) -> tuple[Sequence[GivenMessage], Sequence[GivenMessage]]:
    """What comes before the first assistant turn behind a user's message, and the rest up to the last such turn."""
    first_user = next((index for index, message in enumerate(messages) if message.role == "user"), 0)
    turns = [index for index, message in enumerate(messages) if message.role == "assistant" and index >= first_user]
    if not turns:
        raise CannotLearn("no assistant turn")
    if not turns[0]:
        raise CannotLearn("no message stands before the first assistant turn")
    return messages[: turns[0]], messages[turns[0] : turns[-1] + 1]


def _plain_message(message: GivenMessage) -> Message:
    """A message that the policy did not write."""
    if message.tool_calls:
        raise CannotLearn("a call stands where the policy has no turn")
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.content}
