"""Traces: the visible part of a rollout (texts, calls, replies, outcome) with literals masked, for a writer to read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from json import dumps
from typing import Any

from sgcd.chat import Chat
from sgcd.contrast.leakage.chat_marks import break_chat_marks
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.leakage.verifier_names import collect_verifier_names, remove_verifier_data
from sgcd.contrast.steps import Step, StepBuilder
from sgcd.records import Call, Message, Rollout
from sgcd.text import cut_middle


@dataclass(frozen=True, slots=True)
class TraceCall:
    """One call with its visible arguments."""

    tool: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class TraceTurn:
    """One turn of the policy without its thinking, and the replies to it."""

    text: str = ""
    calls: tuple[TraceCall, ...] = ()
    parse_error: str = ""
    """Why a call could not be parsed."""
    replies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A sibling as a writer sees it. It has no field for gold answers, hidden facts or rewards."""

    success: bool
    turns: tuple[TraceTurn, ...]
    sibling: int = 0
    opening: str = ""
    """The messages before the policy's first turn."""
    steps: tuple[Step, ...] = ()
    """Its calls and its end, with the origins of their values, for a writer that reads them; no text shows them."""
    facts: tuple[tuple[str, bool], ...] = ()
    """What holds at its end, by words that the environment made public."""


def swap_outcomes(traces: Sequence[Trace]) -> list[Trace]:
    """The same traces with success and failure exchanged."""
    return [replace(trace, success=not trace.success) for trace in traces]


def build_traces(
    rollouts: Sequence[Rollout], literals: Literals, chat: Chat, *, with_steps: bool = True
) -> list[Trace]:
    """One trace for each rollout, in order."""
    if not with_steps:
        return [build_trace(rollout, literals, chat) for rollout in rollouts]
    builder = StepBuilder(rollouts, literals.mask)
    traces: list[Trace] = []
    for rollout in rollouts:
        last_turn = rollout.turns[-1] if rollout.turns else None
        is_answer = last_turn is not None and not last_turn.calls and not last_turn.malformed
        answer = chat.visible_text(rollout, last_turn).strip() if last_turn and is_answer else ""
        steps = builder.build(rollout, _opening_messages(rollout), _replies_by_turn(rollout), answer)
        traces.append(replace(build_trace(rollout, literals, chat), steps=steps))
    return traces


def build_trace(rollout: Rollout, literals: Literals, chat: Chat) -> Trace:
    """The visible part of a rollout, without verifier data, with literals masked and chat marks broken."""
    verifier_terms = collect_verifier_names(rollout)

    def clean(text: str) -> str:
        masked = literals.mask(remove_verifier_data(text, verifier_terms))
        unmarked = break_chat_marks(masked)
        return masked if unmarked == masked else literals.mask(unmarked)

    replies_by_turn = _replies_by_turn(rollout)
    turns: list[TraceTurn] = []
    for turn, messages in zip(rollout.turns, replies_by_turn, strict=True):
        replies = tuple(clean(str(message.get("content", ""))) for message in messages)
        calls = tuple(TraceCall(clean(call.name), clean(_format_arguments(call))) for call in turn.calls)
        turns.append(TraceTurn(clean(chat.visible_text(rollout, turn).strip()), calls, clean(turn.malformed), replies))
    opening = "\n".join(
        labelled_line(message["role"], clean(str(message.get("content", "")))) for message in _opening_messages(rollout)
    )
    public_facts = [*rollout.verdict.public_facts.items()] if rollout.verdict else []
    facts = tuple((clean(fact), holds) for fact, holds in public_facts)
    return Trace(rollout.success, tuple(turns), rollout.sibling, opening, facts=facts)


def render_trace(trace: Trace) -> str:
    """A trace as lines of text; the token budget counts these.

    Each line of a text begins with a label or a bar, so that no text can imitate a line of the trace.
    """
    lines = [f"attempt : {'success' if trace.success else 'failure'}"]
    for turn in trace.turns:
        if turn.text:
            lines.append(labelled_line("say", turn.text))
        lines += [labelled_line("call", f"{call.tool} {call.arguments}".rstrip()) for call in turn.calls]
        if turn.parse_error:
            lines.append(labelled_line("problem", turn.parse_error))
        lines += [labelled_line("heard", text) for text in turn.replies]
    lines += [labelled_line("fact", f"{fact} : {'yes' if holds else 'no'}") for fact, holds in trace.facts]
    return "\n".join(lines) + "\n"


def shorten_observations(trace: Trace, max_chars: int) -> Trace:
    """The trace with the middle cut out of each reply of more than `max_chars` characters."""
    turns = (replace(turn, replies=tuple(cut_middle(text, max_chars) for text in turn.replies)) for turn in trace.turns)
    return replace(trace, turns=tuple(turns))


def drop_middle_turns(trace: Trace, num_turns: int) -> Trace:
    """The trace with `num_turns` of its turns. A line replaces the middle turns and gives their number."""
    if len(trace.turns) <= num_turns:
        return trace
    head, tail = (num_turns + 1) // 2, num_turns // 2
    gap = TraceTurn(replies=(f"... {len(trace.turns) - num_turns} turns left out ...",))
    return replace(trace, turns=(*trace.turns[:head], gap, *trace.turns[len(trace.turns) - tail :]))


def _replies_by_turn(rollout: Rollout) -> list[Sequence[Message]]:
    """The messages after each turn. Each turn has one assistant message; they are the last ones of the conversation."""
    assistant_positions = _assistant_positions(rollout)
    replies: list[Sequence[Message]] = [
        rollout.messages[position + 1 : next_position]
        for position, next_position in pairwise([*assistant_positions, len(rollout.messages)])
    ]
    without_message: list[Sequence[Message]] = [()] * (len(rollout.turns) - len(replies))
    return without_message + replies


def _assistant_positions(rollout: Rollout) -> list[int]:
    """The indices of the turns' assistant messages."""
    positions = [position for position, message in enumerate(rollout.messages) if message["role"] == "assistant"]
    return positions[max(0, len(positions) - len(rollout.turns)) :]


def _opening_messages(rollout: Rollout) -> Sequence[Message]:
    """The messages before the first turn."""
    return rollout.messages[: next(iter(_assistant_positions(rollout)), len(rollout.messages))]


def _format_arguments(call: Call) -> str:
    return " ".join(f"{name}={_format_value(value)}" for name, value in call.arguments.items())


def labelled_line(label: str, text: str) -> str:
    return f"{label} : " + "\n | ".join(text.splitlines() or [""])


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False, default=str)
