"""Siblings as a test spells them: what the policy wrote, what came back, and whether it was a success."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.trace import Trace
from sgcd.contrast.writers.built_in import compose_reference
from sgcd.lab import policy
from sgcd.records import EndReason, Group, Message, Rollout, Task, TokenIds, TokenKind, TokenKinds, Turn, Verdict

LAB = policy.build_lab_chat()
OPENING: tuple[Message, ...] = ({"role": "system", "content": "not allowed"}, {"role": "user", "content": "hello"})
TASK = Task("t1", "action", {"gold": "cancel_booking"})
DONE, SORRY = "it is done thank you and goodbye", "sorry this is not allowed by our policy"


def rollout(
    turn_texts: Sequence[str],
    replies: Sequence[str] = (),
    success: bool = True,
    sibling: int = 0,
    ending: EndReason = "answered",
    chat: Chat = LAB,
    failed: Sequence[bool] = (),
    **more: Any,
) -> Rollout:
    """A rollout as act plays it: `said[i]` is a turn, `heard[i]` what a tool answered to it."""
    opened = chat.encode_prompt(OPENING, ())
    messages, turns = [*opened.messages], list[Turn]()
    pieces: list[tuple[TokenIds, TokenKinds]] = []
    length = 0
    for number, text in enumerate(turn_texts):
        ids = np.append(chat.encode_policy_text(text), np.int32(chat.end_id)).astype(np.int32)
        turn, kinds = chat.parse_turn(ids)
        calls = tuple(replace(call, is_error=[*failed, *[False] * len(turn_texts)][number]) for call in turn.calls)
        turns.append(Turn(length, length + len(ids), calls, turn.malformed))
        messages.append(chat.turn_message(ids, True))
        pieces.append((ids, kinds))
        if number < len(replies):
            glue, clean = chat.encode_reply(
                ({"role": "tool", "content": replies[number]},), add_generation_prompt=number + 1 < len(turn_texts)
            )
            messages.extend(clean)
            pieces.append((glue, np.full(len(glue), TokenKind.GLUE, np.uint8)))
        length = sum(len(ids) for ids, _ in pieces)
    kinds = np.concatenate([np.zeros(0, np.uint8), *(kinds for _, kinds in pieces)])
    fields: dict[str, Any] = {
        "task": "t1", "category": "action", "sibling": sibling, "seed": sibling,
        "prompt": opened.token_ids, "reference_position": opened.reference_position,
        "response": np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in pieces)]),
        "response_mask": kinds != TokenKind.GLUE, "token_kinds": kinds,
        "sampling_logprobs": np.zeros(length, np.float32),
        "turns": tuple(turns), "messages": tuple(messages), "tools": (), "end_reason": ending,
        "verdict": Verdict(float(success), success),
    }  # fmt: skip
    return Rollout(**{**fields, **more})


def siblings(*rollouts: Rollout) -> Group:
    return Group(TASK, tuple(replace(member, sibling=at) for at, member in enumerate(rollouts)))


def call(tool: str, *pairs: str) -> str:
    return f"one moment please <call> {' '.join((tool, *pairs))} </call>"


def pair(chat: Chat = LAB) -> Group:
    """One that checked and one that did not; both name the customer and the booking."""
    good = [call("find_user", "name", "mia"), call("get_booking", "booking", "b12"), SORRY]
    bad = [call("find_user", "name", "mia"), call("cancel_booking", "booking", "b12"), DONE]
    user, booking = "user mia tier gold booking b12", "booking b12 cabin basic insured no city oslo"
    literals = ("mia", "b12")
    return siblings(
        rollout(good, [user, booking], True, chat=chat, private=literals),
        rollout(bad, [user, "done cancel_booking"], False, chat=chat, private=literals),
    )


@dataclass
class Says:
    """A writer that returns its texts in order; a text that is an exception is raised."""

    texts: Sequence[Any]
    name: str = "says"
    reads_steps: bool = True
    num_calls: int = 0

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        self.refused = refused
        text = self.texts[min(self.num_calls, len(self.texts) - 1)]
        self.num_calls += 1
        self.traces = traces
        if isinstance(text, BaseException):
            raise text
        return compose_reference(traces) if text is ... else text


class LastWords:
    """A writer for siblings that differ in words alone; the same text for the same traces."""

    name = "built-in"
    reads_steps = False

    def __init__(self, names_failures: bool = False) -> None:
        self.names_failures = names_failures

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        best = next(trace for trace in traces if trace.success)
        return f"successful attempts take {len(best.turns)} turns .\nthey answer : {best.turns[-1].text} ."


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
