"""What a writer sees of a sibling: what was said, called and heard, literals masked, and whether it succeeded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from json import dumps
from typing import Any

from sgcd.chat import Chat
from sgcd.contrast.leakage import verifier_names as evaluator
from sgcd.contrast.leakage.chat_marks import break_chat_marks
from sgcd.contrast.leakage.masking import Literals
from sgcd.records import Call, Message, Rollout
from sgcd.text import cut_middle

_MAX_ANSWER_WORDS = 5
"""Of a final answer: enough to tell a refusal from a confirmation."""
_MAX_ERROR_WORDS = 5
"""Of what a tool complains of."""


@dataclass(frozen=True, slots=True)
class TraceCall:
    """One call as anyone can see it.

    >>> SeenCall("get_booking", "booking=hidden").error
    ''
    """

    tool: str
    arguments: str = ""
    error: str = ""
    """What the tool complained of, in a few words; empty when it answered."""


@dataclass(frozen=True, slots=True)
class TraceTurn:
    """One turn of the policy, without its thinking, and what it heard in return."""

    text: str = ""
    calls: tuple[TraceCall, ...] = ()
    parse_error: str = ""
    """Why a call could not be read."""
    replies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A sibling as a writer sees it. There is no place in it for gold, for the verifier's facts or for a reward.

    >>> Trace(True, (SeenTurn(calls=(SeenCall("find_user"),)), SeenTurn("it is done thank you and goodbye"))).moves
    ('find_user', 'say it is done thank you')
    """

    success: bool
    turns: tuple[TraceTurn, ...]
    sibling: int = 0
    ended_by_call: bool = False
    """Whether a call ended it, so that nothing was left to be said."""
    opening: str = ""
    """What the policy was told before its first turn."""

    @property
    def tools(self) -> tuple[str, ...]:
        """Tools that answered, in order."""
        return tuple(call.tool for turn in self.turns for call in turn.calls if not call.error)

    @property
    def moves(self) -> tuple[str, ...]:
        """Tools that answered, in order, then how its last words begin."""
        last_turn = self.turns[-1] if self.turns else TraceTurn()
        last_words = (
            "" if last_turn.calls or last_turn.parse_error else " ".join(last_turn.text.split()[:_MAX_ANSWER_WORDS])
        )
        return self.tools if self.ended_by_call else (*self.tools, f"say {last_words}" if last_words else "say nothing")

    @property
    def errors(self) -> tuple[str, ...]:
        """What tools complained of, each once."""
        errors_by_turn = (
            [*(f"{call.tool} error {call.error}" for call in turn.calls if call.error)]
            or [f"error {turn.parse_error}"] * bool(turn.parse_error)
            for turn in self.turns
        )
        return tuple(dict.fromkeys(error for turn_errors in errors_by_turn for error in turn_errors))


def build_trace(rollout: Rollout, literals: Literals, chat: Chat) -> Trace:
    """The visible part of a rollout, cleaned before anything is written.

    What a verifier says is taken out, literals are masked, chat marks are broken.
    """
    verifier_terms = evaluator.collect_verifier_names(rollout)

    def clean(text: str) -> str:
        masked = literals.mask(evaluator.remove_verifier_data(text, verifier_terms))
        unmarked = break_chat_marks(masked)
        return masked if unmarked == masked else literals.mask(unmarked)

    replies_by_turn = _replies_by_turn(rollout)
    turns: list[TraceTurn] = []
    for turn, messages in zip(rollout.turns, replies_by_turn, strict=True):
        replies = [clean(str(message.get("content", ""))) for message in messages]
        tool_answers = [text for text, message in zip(replies, messages, strict=True) if message["role"] == "tool"]
        parse_error = clean(turn.malformed)
        if len(tool_answers) != len(turn.calls):
            tool_answers = [parse_error or " ".join(tool_answers)] * len(turn.calls)
        calls = [
            TraceCall(clean(call.name), clean(_format_arguments(call)), _error_words(answer) if call.is_error else "")
            for call, answer in zip(turn.calls, tool_answers, strict=True)
        ]
        turns.append(
            TraceTurn(clean(chat.visible_text(rollout, turn).strip()), tuple(calls), parse_error, tuple(replies))
        )
    opening = "\n".join(
        labelled_line(message["role"], clean(str(message.get("content", "")))) for message in _opening_messages(rollout)
    )
    return Trace(rollout.success, tuple(turns), rollout.sibling, rollout.end_reason == "ended", opening)


def trace_from_tools(success: bool, tools: Sequence[str], last_words: str, literals: Sequence[str]) -> Trace:
    """A trace from the names of the tools that answered and the last words."""
    calls = (TraceTurn(calls=(TraceCall(tool),)) for tool in tools)
    return Trace(success, (*calls, TraceTurn(Literals.from_texts(literals).mask(last_words))))


def render_trace(trace: Trace) -> str:
    """A trace in plain lines, as a writer that is a model reads it.

    What was said and heard begins no line by itself: each line of it has a word of ours or a bar before it.
    """
    lines = [f"attempt : {'success' if trace.success else 'failure'}"]
    for turn in trace.turns:
        lines += [labelled_line("say", turn.text)] if turn.text else []
        lines += [labelled_line("call", f"{call.tool} {call.arguments}".rstrip()) for call in turn.calls]
        lines += [labelled_line("problem", turn.parse_error)] if turn.parse_error else []
        lines += [labelled_line("heard", text) for text in turn.replies]
    return "\n".join(lines) + "\n"


def shorten_observations(trace: Trace, max_chars: int) -> Trace:
    """The trace with the middle cut out of every observation that has more than `limit` characters."""
    turns = (replace(turn, replies=tuple(cut_middle(text, max_chars) for text in turn.replies)) for turn in trace.turns)
    return replace(trace, turns=tuple(turns))


def drop_middle_turns(trace: Trace, num_turns: int) -> Trace:
    """The trace with its middle turns left out: `keep` of them stay, and a line says how many are missing."""
    if len(trace.turns) <= num_turns:
        return trace
    head, tail = (num_turns + 1) // 2, num_turns // 2
    gap = TraceTurn(replies=(f"... {len(trace.turns) - num_turns} turns left out ...",))
    return replace(trace, turns=(*trace.turns[:head], gap, *trace.turns[len(trace.turns) - tail :]))


def _replies_by_turn(rollout: Rollout) -> list[Sequence[Message]]:
    """For each turn, what came back. Every turn has one message of its own, and they are the conversation's last."""
    assistant_positions = _assistant_positions(rollout)
    replies: list[Sequence[Message]] = [
        rollout.messages[position + 1 : next_position]
        for position, next_position in pairwise([*assistant_positions, len(rollout.messages)])
    ]
    return [*[()] * (len(rollout.turns) - len(replies)), *replies]


def _assistant_positions(rollout: Rollout) -> list[int]:
    """Where in the conversation its turns stand."""
    positions = [position for position, message in enumerate(rollout.messages) if message["role"] == "assistant"]
    return positions[max(0, len(positions) - len(rollout.turns)) :]


def _opening_messages(rollout: Rollout) -> Sequence[Message]:
    """All that came before its first turn."""
    return rollout.messages[: next(iter(_assistant_positions(rollout)), len(rollout.messages))]


def _format_arguments(call: Call) -> str:
    return " ".join(f"{name}={_format_value(value)}" for name, value in call.arguments.items())


def labelled_line(label: str, text: str) -> str:
    return f"{label} : " + "\n | ".join(text.splitlines() or [""])


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False, default=str)


def _error_words(text: str) -> str:
    """The first words of what a tool answered, without its own `error :`."""
    words = re.sub(r"^\W*error\W*", "", text.strip(), flags=re.IGNORECASE).split()
    return " ".join(words[:_MAX_ERROR_WORDS]) or "unknown"
