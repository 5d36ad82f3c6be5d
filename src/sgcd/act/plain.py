"""One task played with a chat model that is no policy: its messages and native calls are kept, and no token."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sgcd.act.environment import Environment, Reply
from sgcd.act.patience import ask, blamed_on
from sgcd.act.rollout import answer, begin, shortened, to_the_end, weigh
from sgcd.act.settings import Limits
from sgcd.act.tape import Tape
from sgcd.chat.calls import parse_json
from sgcd.endpoint.answer import Answer, Called
from sgcd.endpoint.ask import Endpoint, How
from sgcd.records import Call, Message, Rollout, Said, Task, Turn

FEWEST = 16
"""Tokens that an answer is asked for at least; with fewer left the trial has reached its limit."""


@dataclass(slots=True)
class Player:
    """A model at one task."""

    endpoint: Endpoint
    temperature: float | None
    seed: int
    written: int = 0
    """Tokens of its answers, as its server counts them; what it heard is not counted, since nobody here can."""


async def play_plain(task: Task, environment: Environment, player: Player, limits: Limits, trial: int) -> Rollout:
    """Play `task` to its end, under the limits of a policy. What no answer came to makes it broken, by kind."""
    tape = Tape(task, trial, player.seed)
    return await to_the_end(tape, environment, limits, lambda: _converse(tape, environment, player, limits))


async def _converse(tape: Tape, environment: Environment, player: Player, limits: Limits) -> None:
    opening = await begin(tape, environment, limits)
    with blamed_on("open"):
        names = {str(tool["function"]["name"]) for tool in opening.tools}
        tape.tools = opening.tools
        tape.messages.extend(opening.messages)
    while tape.ending is None:
        how = How(player.temperature, player.seed, opening.tools, limits.tokens - player.written)
        told = await ask("model", lambda how=how: player.endpoint.ask(tape.messages, how=how), None)
        player.written += told.tokens
        said = said_of(told)
        tape.turns.append(Turn(0, 0, said.calls, said.malformed))
        tape.messages.append(message_of(told))
        if not told.whole:  # not carried out, as with a policy
            tape.ending = "token_limit"
            tape.cut("tokens")
            return
        reply = await answer(tape, said, names, environment, limits)
        with blamed_on("reply"):
            _hear(tape, said, told.calls, reply, limits)
        if tape.ending is None and limits.tokens - player.written < FEWEST:
            tape.ending = "token_limit"
            tape.cut("tokens")


def _hear(tape: Tape, said: Said, calls: Sequence[Called], reply: Reply, limits: Limits) -> None:
    weigh(tape, said, reply, limits)
    tape.messages.extend(answered(calls, shortened(tape, reply.messages, limits)))


def said_of(told: Answer) -> Said:
    """What the model said, read as strictly as a policy; a turn that was cut off calls nothing."""
    if not told.whole:
        return Said("", told.text.strip(), ())
    calls = [call_of(call) for call in told.calls]
    malformed = next((call for call in calls if isinstance(call, str)), "")
    read = () if malformed else tuple(call for call in calls if isinstance(call, Call))
    return Said("", told.text.strip(), read, malformed)


def call_of(called: Called) -> Call | str:
    """As a policy's call in JSON would be read, or what is wrong with it."""
    named = json.dumps({"name": called.name})
    return parse_json(f'{named[:-1]}, "arguments": {_given(called)}}}')


def message_of(told: Answer) -> Message:
    """The answer as it goes back into the conversation. Arguments that are no object go as {}."""
    if not told.calls:
        return {"role": "assistant", "content": told.text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": _given(call) if _is_object(_given(call)) else "{}"},
        }
        for call in told.calls
    ]
    return {"role": "assistant", "content": told.text, "tool_calls": calls}


def answered(calls: Sequence[Called], messages: Sequence[Message]) -> list[Message]:
    """A reply in which each call has its answer; a turn that was refused whole has the same one for all its calls."""
    heard = [str(message["content"]) for message in messages if message["role"] == "tool"]
    if len(heard) != len(calls):
        heard = ["\n".join(heard)] * len(calls)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": text} for call, text in zip(calls, heard, strict=True)
    ]
    return [*results, *(message for message in messages if message["role"] != "tool")]


def _given(call: Called) -> str:
    """Some servers say nothing where a call has no arguments."""
    return call.arguments.strip() or "{}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
