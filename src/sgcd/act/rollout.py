"""One rollout, turn by turn; tokens are only ever appended."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from logging import getLogger
from math import isfinite

from sgcd.act.environment import Environment, InitialMessages, Reply, Session
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.settings import Limits
from sgcd.act.timeouts import RolloutBroken, break_rollout_on_error, call_with_timeout
from sgcd.chat import Chat
from sgcd.records import Message, ParsedTurn, Rollout, Task, TokenIds

_log = getLogger(__name__)


async def play_rollout(
    task: Task, environment: Environment, chat: Chat, session: Session, limits: Limits, sibling: int, seed: int
) -> Rollout:
    """Play `task` to its end.

    What the environment raises, and a silence of more than `limits.seconds`, make the rollout broken: it keeps what was
    played, and the cause. What the sampler raises passes through. Session and environment are closed in every case.
    """
    recorder = RolloutRecorder(task, sibling, seed)

    async def converse() -> None:
        try:
            await _converse(recorder, environment, chat, session, limits)
        finally:
            session.close()  # before the verifier, which needs no slot

    return await run_episode(recorder, environment, limits, converse)


async def run_episode(
    recorder: RolloutRecorder, environment: Environment, limits: Limits, converse: Callable[[], Awaitable[None]]
) -> Rollout:
    """Talk, take the verdict, close; what breaks on the way makes the rollout broken."""
    broken = ""
    try:
        await converse()
        await verify_rollout(recorder, environment, limits)
    except RolloutBroken as problem:
        broken = str(problem)
    finally:
        await close_environment(recorder, environment, limits)
    return recorder.build_rollout(broken)


async def count_prompt_tokens(task: Task, environment: Environment, chat: Chat, limits: Limits, seed: int) -> int:
    """Tokens of a task's prompt; 0 where the environment cannot open it, of which playing it will say more."""
    try:
        initial = await open_task(RolloutRecorder(task, 0, seed), environment, limits)
        with break_rollout_on_error("open"):
            return len(chat.encode_prompt(initial.messages, initial.tools, initial.reference_message).token_ids)
    except RolloutBroken:
        return 0
    finally:
        with suppress(RolloutBroken):
            await call_with_timeout("close", environment.close, limits.seconds)


async def open_task(recorder: RolloutRecorder, environment: Environment, limits: Limits) -> InitialMessages:
    """How the task begins, the first words of a simulated user included; too long ones lose their middle."""
    initial = await call_with_timeout("open", lambda: environment.open(recorder.task, recorder.seed), limits.seconds)
    if not initial.ask_user:
        return initial
    reply = await call_with_timeout("user", initial.ask_user, None)
    return replace(initial, messages=(*initial.messages, *truncate_observations(recorder, reply.messages, limits)))


async def _converse(
    recorder: RolloutRecorder, environment: Environment, chat: Chat, session: Session, limits: Limits
) -> None:
    """The policy and the environment in turn, until one of them or a limit ends it."""
    initial = await open_task(recorder, environment, limits)
    with break_rollout_on_error("open"):
        tool_names = {str(tool["function"]["name"]) for tool in initial.tools}
        recorder.set_prompt(initial, chat.encode_prompt(initial.messages, initial.tools, initial.reference_message))
    new_ids = recorder.prompt
    while recorder.end_reason is None:
        sampled = await session.sample(new_ids, limits.tokens - recorder.response_length)
        turn, token_kinds = chat.parse_turn(sampled.token_ids, recorder.tools)
        if (
            not sampled.hit_end_token
        ):  # a turn that was cut off is not carried out, and nothing in it is the policy's mistake
            turn = replace(turn, calls=(), malformed="")
        recorder.add_turn(
            sampled,
            turn,
            token_kinds,
            chat.turn_message(sampled.token_ids, sampled.hit_end_token),
            chat.roundtrips(sampled.token_ids),
        )
        if not sampled.hit_end_token:
            recorder.end_reason = "token_limit"
            recorder.count_truncation("tokens")
            return
        reply = await get_reply(recorder, turn, tool_names, environment, limits)
        with break_rollout_on_error("reply"):
            new_ids = _append_reply(recorder, turn, reply, chat, limits)


async def verify_rollout(recorder: RolloutRecorder, environment: Environment, limits: Limits) -> None:
    """Take the verdict and what is private."""
    verdict = await call_with_timeout("verify", environment.verify, limits.seconds)
    with break_rollout_on_error("private"):
        recorder.set_private(environment.private())
    with break_rollout_on_error("verify"):
        if not isfinite(verdict.reward):
            raise RolloutBroken(f"verify: the reward is {verdict.reward}, expected a finite number")
        if recorder.end_reason in (
            "turn_limit",
            "token_limit",
        ):  # a truncated rollout counts as a failure (method.md 6(d))
            verdict = replace(verdict, reward=0.0, success=False)
        recorder.verdict = verdict


async def get_reply(
    recorder: RolloutRecorder, turn: ParsedTurn, tool_names: set[str], environment: Environment, limits: Limits
) -> Reply:
    """The environment's reply; or, where a call cannot be carried out as it stands, what was wrong with it.

    Such a turn is refused whole: half of it done would leave the policy guessing which half.
    """
    unknown = next((call.name for call in turn.calls if call.name not in tool_names), None)
    malformed = turn.malformed or (f"unknown tool {unknown}" if unknown is not None else "")
    if malformed:
        recorder.mark_calls(malformed, [True] * len(turn.calls))
        return Reply(({"role": "tool", "content": f"error : {malformed}"},))
    reply = await call_with_timeout("reply", lambda: environment.reply(turn), limits.seconds)
    if reply.ask_user:
        reply = await call_with_timeout("user", reply.ask_user, None)
    call_errors = reply.call_errors or (False,) * len(turn.calls)
    if len(call_errors) != len(turn.calls):
        raise RolloutBroken(f"reply: expected a flag for each of {len(turn.calls)} calls, got {len(call_errors)}")
    recorder.mark_calls("", call_errors)
    return reply


def _append_reply(recorder: RolloutRecorder, turn: ParsedTurn, reply: Reply, chat: Chat, limits: Limits) -> TokenIds:
    """Append the reply; returns the tokens that the sampler has not seen. Decides whether the rollout is over."""
    update_end_reason(recorder, turn, reply, limits)
    continues = recorder.end_reason is None
    glue, messages = (
        chat.encode_reply(truncate_observations(recorder, reply.messages, limits), add_generation_prompt=continues)
        if reply.messages
        else (recorder.prompt[:0], ())
    )
    if (
        recorder.response_length + len(glue) + continues > limits.tokens
    ):  # nobody will read these messages: they are left out whole
        recorder.count_truncation("tokens")
        recorder.end_reason = recorder.end_reason or "token_limit"
    else:
        recorder.add_reply(glue, messages)
    return glue


def update_end_reason(recorder: RolloutRecorder, turn: ParsedTurn, reply: Reply, limits: Limits) -> None:
    """Whether the rollout is over with this reply, but for its tokens."""
    if reply.done:
        recorder.end_reason = "ended" if turn.calls else "answered"
    elif len(recorder.turns) == limits.turns:
        recorder.end_reason = "turn_limit"
        recorder.count_truncation("turns")
    elif not reply.messages:
        raise RolloutBroken("reply: the environment neither answered nor ended the rollout")


def truncate_observations(recorder: RolloutRecorder, messages: Sequence[Message], limits: Limits) -> list[Message]:
    """Observations that are too long lose their middle; the marker says how much is missing."""
    truncated: list[Message] = []
    for message in messages:
        excess = len(message["content"]) - limits.observation
        if excess > 0:
            recorder.count_truncation("observation")
            message = {**message, "content": _cut_middle(message["content"], limits.observation)}
        truncated.append(message)
    return truncated


def _cut_middle(text: str, keep: int) -> str:
    """
    >>> _without_middle("abcdefgh", 3)
    'ab ... 5 characters cut ... h'
    """
    head, tail = (keep + 1) // 2, keep // 2
    return f"{text[:head]} ... {len(text) - keep} characters cut ... {text[len(text) - tail :]}"


async def close_environment(recorder: RolloutRecorder, environment: Environment, limits: Limits) -> None:
    """Too late to matter to what was played."""
    try:
        await call_with_timeout("close", environment.close, limits.seconds)
    except RolloutBroken as error:
        _log.warning("task %s, sibling %d: %s", recorder.task.id, recorder.sibling, error)
