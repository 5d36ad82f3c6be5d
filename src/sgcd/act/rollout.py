"""One rollout, turn by turn; tokens are only ever appended."""

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from logging import getLogger
from math import isfinite

from sgcd.act.environment import Environment, Opening, Reply, Session
from sgcd.act.patience import Broken, ask, blamed_on
from sgcd.act.settings import Limits
from sgcd.act.tape import Tape
from sgcd.chat import Chat
from sgcd.records import Ids, Message, Rollout, Said, Task

log = getLogger(__name__)


def seed_of(*parts: str | int) -> int:
    """A seed of 63 bits from whatever names the thing to be seeded; the same on every machine (method.md 6(d)).

    >>> seed_of(1, 4, "train-0007", 0) == seed_of(1, 4, "train-0007", 0) != seed_of(1, 4, "train-0007", 1)
    True
    """
    return int.from_bytes(sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1


async def play(
    task: Task, environment: Environment, chat: Chat, session: Session, limits: Limits, sibling: int, seed: int
) -> Rollout:
    """Play `task` to its end.

    What the environment raises, and a silence of more than `limits.seconds`, make the rollout broken: it keeps what was
    played, and the cause. What the sampler raises passes through. Session and environment are closed in every case.
    """
    tape = Tape(task, sibling, seed)

    async def talk() -> None:
        try:
            await _converse(tape, environment, chat, session, limits)
        finally:
            session.close()  # before the verifier, which needs no slot

    return await to_the_end(tape, environment, limits, talk)


async def to_the_end(
    tape: Tape, environment: Environment, limits: Limits, talk: Callable[[], Awaitable[None]]
) -> Rollout:
    """Talk, take the verdict, close; what breaks on the way makes the rollout broken."""
    broken = ""
    try:
        await talk()
        await judge(tape, environment, limits)
    except Broken as problem:
        broken = str(problem)
    finally:
        await close(tape, environment, limits)
    return tape.rollout(broken)


async def preview(task: Task, environment: Environment, chat: Chat, limits: Limits, seed: int) -> int:
    """Tokens of a task's prompt; 0 where the environment cannot open it, of which playing it will say more."""
    try:
        opening = await begin(Tape(task, 0, seed), environment, limits)
        with blamed_on("open"):
            return len(chat.open(opening.messages, opening.tools, opening.harness).ids)
    except Broken:
        return 0
    finally:
        with suppress(Broken):
            await ask("close", environment.close, limits.seconds)


async def begin(tape: Tape, environment: Environment, limits: Limits) -> Opening:
    """How the task begins, the first words of a simulated user included; too long ones lose their middle."""
    opening = await ask("open", lambda: environment.open(tape.task, tape.seed), limits.seconds)
    if not opening.user:
        return opening
    first = await ask("user", opening.user, None)
    return replace(opening, messages=(*opening.messages, *shortened(tape, first.messages, limits)))


async def _converse(tape: Tape, environment: Environment, chat: Chat, session: Session, limits: Limits) -> None:
    """The policy and the environment in turn, until one of them or a limit ends it."""
    opening = await begin(tape, environment, limits)
    with blamed_on("open"):
        names = {str(tool["function"]["name"]) for tool in opening.tools}
        tape.open(opening, chat.open(opening.messages, opening.tools, opening.harness))
    new = tape.prompt
    while tape.ending is None:
        sampled = await session.sample(new, limits.tokens - tape.length)
        said, kinds = chat.read(sampled.ids, tape.tools)
        if not sampled.stopped:  # a turn that was cut off is not carried out, and nothing in it is the policy's mistake
            said = replace(said, calls=(), malformed="")
        tape.say(sampled, said, kinds, chat.said_message(sampled.ids, sampled.stopped), chat.exact(sampled.ids))
        if not sampled.stopped:
            tape.ending = "token_limit"
            tape.cut("tokens")
            return
        reply = await answer(tape, said, names, environment, limits)
        with blamed_on("reply"):
            new = _hear(tape, said, reply, chat, limits)


async def judge(tape: Tape, environment: Environment, limits: Limits) -> None:
    """Take the verdict and what is private."""
    verdict = await ask("verify", environment.verify, limits.seconds)
    with blamed_on("private"):
        tape.keep_private(environment.private())
    with blamed_on("verify"):
        if not isfinite(verdict.reward):
            raise Broken(f"verify: the reward is {verdict.reward}, expected a finite number")
        if tape.ending in ("turn_limit", "token_limit"):  # a truncated rollout counts as a failure (method.md 6(d))
            verdict = replace(verdict, reward=0.0, success=False)
        tape.verdict = verdict


async def answer(tape: Tape, said: Said, names: set[str], environment: Environment, limits: Limits) -> Reply:
    """The environment's reply; or, where a call cannot be carried out as it stands, what was wrong with it.

    Such a turn is refused whole: half of it done would leave the policy guessing which half.
    """
    unknown = next((call.name for call in said.calls if call.name not in names), None)
    malformed = said.malformed or (f"unknown tool {unknown}" if unknown is not None else "")
    if malformed:
        tape.judge(malformed, [True] * len(said.calls))
        return Reply(({"role": "tool", "content": f"error : {malformed}"},))
    reply = await ask("reply", lambda: environment.reply(said), limits.seconds)
    if reply.user:
        reply = await ask("user", reply.user, None)
    failed = reply.failed or (False,) * len(said.calls)
    if len(failed) != len(said.calls):
        raise Broken(f"reply: expected a flag for each of {len(said.calls)} calls, got {len(failed)}")
    tape.judge("", failed)
    return reply


def _hear(tape: Tape, said: Said, reply: Reply, chat: Chat, limits: Limits) -> Ids:
    """Append the reply; returns the tokens that the sampler has not seen. Decides whether the rollout is over."""
    weigh(tape, said, reply, limits)
    goes_on = tape.ending is None
    glue, messages = (
        chat.extend(shortened(tape, reply.messages, limits), opens=goes_on) if reply.messages else (tape.prompt[:0], ())
    )
    if tape.length + len(glue) + goes_on > limits.tokens:  # nobody will read these messages: they are left out whole
        tape.cut("tokens")
        tape.ending = tape.ending or "token_limit"
    else:
        tape.hear(glue, messages)
    return glue


def weigh(tape: Tape, said: Said, reply: Reply, limits: Limits) -> None:
    """Whether the rollout is over with this reply, but for its tokens."""
    if reply.done:
        tape.ending = "ended" if said.calls else "answered"
    elif len(tape.turns) == limits.turns:
        tape.ending = "turn_limit"
        tape.cut("turns")
    elif not reply.messages:
        raise Broken("reply: the environment neither answered nor ended the rollout")


def shortened(tape: Tape, messages: Sequence[Message], limits: Limits) -> list[Message]:
    """Observations that are too long lose their middle; the marker says how much is missing."""
    shortened: list[Message] = []
    for message in messages:
        excess = len(message["content"]) - limits.observation
        if excess > 0:
            tape.cut("observation")
            message = {**message, "content": _without_middle(message["content"], limits.observation)}
        shortened.append(message)
    return shortened


def _without_middle(text: str, keep: int) -> str:
    """
    >>> _without_middle("abcdefgh", 3)
    'ab ... 5 characters cut ... h'
    """
    head, tail = (keep + 1) // 2, keep // 2
    return f"{text[:head]} ... {len(text) - keep} characters cut ... {text[len(text) - tail :]}"


async def close(tape: Tape, environment: Environment, limits: Limits) -> None:
    """Too late to matter to what was played."""
    try:
        await ask("close", environment.close, limits.seconds)
    except Broken as problem:
        log.warning("task %s, sibling %d: %s", tape.task.id, tape.sibling, problem)
