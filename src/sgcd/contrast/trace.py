"""What a writer sees of a sibling: what was said, called and heard, literals masked, and whether it succeeded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from json import dumps
from typing import Any

from sgcd.chat import Chat
from sgcd.contrast import evaluator
from sgcd.contrast.marks import without_marks
from sgcd.contrast.mask import Literals
from sgcd.records import Call, Message, Rollout

ANSWER_WORDS = 5
"""Of a final answer: enough to tell a refusal from a confirmation."""
ERROR_WORDS = 5
"""Of what a tool complains of."""


@dataclass(frozen=True, slots=True)
class SeenCall:
    """One call as anyone can see it.

    >>> SeenCall("get_booking", "booking=hidden").error
    ''
    """

    tool: str
    arguments: str = ""
    error: str = ""
    """What the tool complained of, in a few words; empty when it answered."""


@dataclass(frozen=True, slots=True)
class SeenTurn:
    """One turn of the policy, without its thinking, and what it heard in return."""

    said: str = ""
    calls: tuple[SeenCall, ...] = ()
    problem: str = ""
    """Why a call could not be read."""
    heard: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A sibling as a writer sees it. There is no place in it for gold, for the verifier's facts or for a reward.

    >>> Trace(True, (SeenTurn(calls=(SeenCall("find_user"),)), SeenTurn("it is done thank you and goodbye"))).moves
    ('find_user', 'say it is done thank you')
    """

    success: bool
    turns: tuple[SeenTurn, ...]
    sibling: int = 0
    called_off: bool = False
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
        last = self.turns[-1] if self.turns else SeenTurn()
        answer = "" if last.calls or last.problem else " ".join(last.said.split()[:ANSWER_WORDS])
        return self.tools if self.called_off else (*self.tools, f"say {answer}" if answer else "say nothing")

    @property
    def errors(self) -> tuple[str, ...]:
        """What tools complained of, each once."""
        found = (
            [*(f"{call.tool} error {call.error}" for call in turn.calls if call.error)]
            or [f"error {turn.problem}"] * bool(turn.problem)
            for turn in self.turns
        )
        return tuple(dict.fromkeys(error for errors in found for error in errors))


def trace_of(rollout: Rollout, literals: Literals, chat: Chat) -> Trace:
    """The visible part of a rollout, cleaned before anything is written.

    What a verifier says is taken out, literals are masked, chat marks are broken.
    """
    names = evaluator.names(rollout)

    def clean(text: str) -> str:
        masked = literals.mask(evaluator.without(text, names))
        broken = without_marks(masked)
        return masked if broken == masked else literals.mask(broken)

    heard = _heard(rollout)
    turns: list[SeenTurn] = []
    for turn, messages in zip(rollout.turns, heard, strict=True):
        said = chat.read(rollout.response[turn.start : turn.stop], rollout.tools)[0]
        replies = [clean(str(message.get("content", ""))) for message in messages]
        answers = [text for text, message in zip(replies, messages, strict=True) if message["role"] == "tool"]
        problem = clean(turn.malformed)
        if len(answers) != len(turn.calls):
            answers = [problem or " ".join(answers)] * len(turn.calls)
        calls = [
            SeenCall(clean(call.name), clean(_arguments(call)), _complaint(answer) if call.failed else "")
            for call, answer in zip(turn.calls, answers, strict=True)
        ]
        turns.append(SeenTurn(clean(said.text.strip()), tuple(calls), problem, tuple(replies)))
    told = "\n".join(line(message["role"], clean(str(message.get("content", "")))) for message in _opening(rollout))
    return Trace(rollout.success, tuple(turns), rollout.sibling, rollout.ending == "ended", told)


def trace(success: bool, tools: Sequence[str], said: str, literals: Sequence[str]) -> Trace:
    """A trace from the names of the tools that answered and the last words."""
    calls = (SeenTurn(calls=(SeenCall(tool),)) for tool in tools)
    return Trace(success, (*calls, SeenTurn(Literals.of(literals).mask(said))))


def render(seen: Trace) -> str:
    """A trace in plain lines, as a writer that is a model reads it.

    What was said and heard begins no line by itself: each line of it has a word of ours or a bar before it.
    """
    lines = [f"attempt : {'success' if seen.success else 'failure'}"]
    for turn in seen.turns:
        lines += [line("say", turn.said)] if turn.said else []
        lines += [line("call", f"{call.tool} {call.arguments}".rstrip()) for call in turn.calls]
        lines += [line("problem", turn.problem)] if turn.problem else []
        lines += [line("heard", text) for text in turn.heard]
    return "\n".join(lines) + "\n"


def shortened(seen: Trace, limit: int) -> Trace:
    """The trace with the middle cut out of every observation that has more than `limit` characters."""
    turns = (replace(turn, heard=tuple(cut(text, limit) for text in turn.heard)) for turn in seen.turns)
    return replace(seen, turns=tuple(turns))


def without_middle(seen: Trace, keep: int) -> Trace:
    """The trace with its middle turns left out: `keep` of them stay, and a line says how many are missing."""
    if len(seen.turns) <= keep:
        return seen
    head, tail = (keep + 1) // 2, keep // 2
    gap = SeenTurn(heard=(f"... {len(seen.turns) - keep} turns left out ...",))
    return replace(seen, turns=(*seen.turns[:head], gap, *seen.turns[len(seen.turns) - tail :]))


def _heard(rollout: Rollout) -> list[Sequence[Message]]:
    """For each turn, what came back. Every turn has one message of its own, and they are the conversation's last."""
    own = _own(rollout)
    heard: list[Sequence[Message]] = [
        rollout.messages[at + 1 : after] for at, after in pairwise([*own, len(rollout.messages)])
    ]
    return [*[()] * (len(rollout.turns) - len(heard)), *heard]


def _own(rollout: Rollout) -> list[int]:
    """Where in the conversation its turns stand."""
    said = [at for at, message in enumerate(rollout.messages) if message["role"] == "assistant"]
    return said[max(0, len(said) - len(rollout.turns)) :]


def _opening(rollout: Rollout) -> Sequence[Message]:
    """All that came before its first turn."""
    return rollout.messages[: next(iter(_own(rollout)), len(rollout.messages))]


def _arguments(call: Call) -> str:
    return " ".join(f"{name}={_plain(value)}" for name, value in call.arguments.items())


def line(name: str, text: str) -> str:
    return f"{name} : " + "\n | ".join(text.splitlines() or [""])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False, default=str)


def _complaint(text: str) -> str:
    """The first words of what a tool answered, without its own `error :`."""
    words = re.sub(r"^\W*error\W*", "", text.strip(), flags=re.IGNORECASE).split()
    return " ".join(words[:ERROR_WORDS]) or "unknown"


def cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head, tail = (limit + 1) // 2, limit // 2
    return f"{text[:head]} ... {len(text) - limit} characters cut ... {text[len(text) - tail :]}"
