"""Recorded rollouts as the records of a run: token ids by a policy's own tokenizer, or words where no model reads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic import ValidationError

from sgcd.chat import Chat
from sgcd.errors import DataError
from sgcd.learn.supervised.conversations import Conversation, ConversationLine
from sgcd.learn.supervised.encode import CannotLearn, encode_conversation
from sgcd.recorded.formats import RecordedRollout, is_failed_call
from sgcd.recorded.groups import RolloutIndex, Siblings
from sgcd.records import EndReason, Group, Rollout, Task, Turn, Verdict


@dataclass(slots=True)
class EncodedGroups:
    """Groups of one batch, the place of each rollout by its name, and the rollouts that could not be used."""

    groups: list[Group] = field(default_factory=list[Group])
    places: dict[str, str] = field(default_factory=dict[str, str])
    unusable: Counter[str] = field(default_factory=Counter[str])


def encode_groups(
    index: RolloutIndex, batch: Sequence[Siblings], chat: Chat, *, success: float, window: int
) -> EncodedGroups:
    """Encode the siblings of each task. A rollout of more than `window` tokens is left out, never cut."""
    encoded = EncodedGroups()
    for siblings in batch:
        rollouts: list[Rollout] = []
        for number in siblings.choose(success):
            place, recorded = index.read(siblings, number)
            try:
                rollout = _encode(recorded, str(place), number, chat, success=success)
                if (length := len(rollout.prompt) + len(rollout.response)) > window:
                    raise CannotLearn(f"longer than {window} tokens", f"{length}")
            except CannotLearn as problem:
                encoded.unusable[problem.kind] += 1
                continue
            rollouts.append(rollout)
            encoded.places[rollout.name] = str(place)
        category = rollouts[0].category if rollouts else "action"
        encoded.groups.append(Group(Task(siblings.task, category, {}), tuple(rollouts)))
    return encoded


def _encode(recorded: RecordedRollout, where: str, sibling: int, chat: Chat, *, success: float) -> Rollout:
    """One rollout with its verdict; raises `CannotLearn` with the kind of what is wrong with it."""
    try:
        line = ConversationLine.model_validate(
            {"messages": _without_functions(recorded.messages), "tools": recorded.tools or None}
        )
    except ValidationError as problem:
        detail = problem.errors()[0]
        raise CannotLearn(f"{'.'.join(map(str, detail['loc'][:1]))} not as in OpenAI's chat data") from problem
    conversation = Conversation(tuple(line.messages), tuple(recorded.tools), where)
    rollout = encode_conversation(conversation, chat, is_to_learn=False)
    turns = _mark_failed_calls(rollout.turns, recorded.messages)
    end: EndReason = cast("EndReason", recorded.end) or ("ended" if turns[-1].calls else "answered")
    return replace(
        rollout, task=recorded.task, category=recorded.category, sibling=sibling, turns=turns, end_reason=end,
        verdict=Verdict(recorded.reward, recorded.reward >= success), private=tuple(recorded.private),
    )  # fmt: skip


def _without_functions(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The role `function` is an older name of `tool`."""
    return [{**message, "role": "tool"} if message.get("role") == "function" else message for message in messages]


def _mark_failed_calls(turns: Sequence[Turn], messages: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """The turns, with the calls marked that a tool answered with an error; answers come in the order of the calls."""
    failed_by_turn: list[list[bool]] = []
    for message in messages:
        if message.get("role") == "assistant":
            failed_by_turn.append([])
        elif message.get("role") in ("tool", "function") and failed_by_turn:
            failed_by_turn[-1].append(is_failed_call(message))
    of_turns = failed_by_turn[len(failed_by_turn) - len(turns) :]
    return tuple(
        replace(
            turn,
            calls=tuple(
                replace(call, is_error=number < len(failed) and failed[number])
                for number, call in enumerate(turn.calls)
            ),
        )
        for turn, failed in zip(turns, of_turns, strict=True)
    )


def refuse_unusable(encoded: EncodedGroups, where: str) -> None:
    """Refuse files of which no rollout can be read by this policy."""
    if not encoded.places and encoded.unusable:
        cause, count = encoded.unusable.most_common(1)[0]
        raise DataError(f"{where}: none of {encoded.unusable.total()} rollouts can be used: {cause} ({count})")
