"""Play one rollout turn by turn and record every token of it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from logging import getLogger
from math import isfinite

from sgcd.act.environment import Environment, InitialMessages, Reply, Session
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.settings import Limits
from sgcd.act.timeouts import RolloutBroken, break_rollout_on_error, call_with_timeout
from sgcd.chat import Chat
from sgcd.records import EndReason, Message, ParsedTurn, Rollout
from sgcd.text import cut_middle

_log = getLogger(__name__)


async def play_rollout(
    recorder: RolloutRecorder, environment: Environment, session: Session, *, chat: Chat, limits: Limits
) -> Rollout:
    """Play the recorder's task to its end.

    An environment that raises, or that does not answer within `limits.seconds`, breaks the rollout: the record keeps
    what was played, and the cause. What the sampler raises passes through. Session and environment are always closed.
    """
    async with verify_and_close(recorder, environment, limits):
        with closing(session):  # before the verifier, which needs no slot
            initial, num_truncated = await open_task(recorder, environment, limits)
            recorder.add_truncation("observation", num_truncated)
            with break_rollout_on_error("open"):
                tool_names = initial.tool_names
                encoded = chat.encode_prompt(initial.messages, initial.tools)
                recorder.add_prompt(initial, encoded)
            new_ids = recorder.prompt
            while recorder.end_reason is None:
                sampled = await session.sample(new_ids, limits.tokens - recorder.response_length)
                turn, token_kinds = chat.parse_turn(sampled.token_ids, (*initial.tools, *initial.late_tools))
                if not sampled.hit_end_token:  # a turn that was cut is not carried out, and its errors do not count
                    turn = replace(turn, calls=(), malformed="")
                message = chat.turn_message(sampled.token_ids, sampled.hit_end_token)
                roundtrips = chat.roundtrips(sampled.token_ids)
                recorder.add_turn(turn, message, sampled=sampled, token_kinds=token_kinds, roundtrips=roundtrips)
                if not sampled.hit_end_token:
                    recorder.finish("token_limit")
                    break
                end_reason, messages = await take_reply(turn, tool_names, recorder, environment, limits=limits)
                with break_rollout_on_error("reply"):
                    new_ids = recorder.prompt[:0]
                    if messages:
                        new_ids, messages = chat.encode_reply(messages, add_generation_prompt=end_reason is None)
                    if recorder.response_length + len(new_ids) + (end_reason is None) <= limits.tokens:
                        recorder.add_reply(messages, new_ids)
                    elif end_reason is None:  # no token is left to answer these messages: they are left out whole
                        recorder.finish("token_limit")
                    else:
                        recorder.add_truncation("tokens")
    return recorder.build_rollout()


@asynccontextmanager
async def verify_and_close(
    recorder: RolloutRecorder, environment: Environment, limits: Limits
) -> AsyncGenerator[None, None]:
    """Run the body, then the verifier; close the environment in every case.

    `RolloutBroken`, raised by the body or by the verifier, ends here: the rollout is finished as broken.
    """
    try:
        yield
        await _add_verdict(recorder, environment, limits)
    except RolloutBroken as problem:
        recorder.finish("broken", str(problem))
    finally:
        try:
            await call_with_timeout("close", environment.close, limits.seconds)
        except RolloutBroken as error:  # too late to change what was played
            _log.warning("task %s, sibling %d: %s", recorder.task.id, recorder.sibling, error)


async def _add_verdict(recorder: RolloutRecorder, environment: Environment, limits: Limits) -> None:
    verdict = await call_with_timeout("verify", environment.verify, limits.seconds)
    with break_rollout_on_error("private"):
        recorder.add_private(environment.private())
    with break_rollout_on_error("verify"):
        if not isfinite(verdict.reward):
            raise RolloutBroken(f"verify: the reward is {verdict.reward}, expected a finite number")
        if recorder.end_reason in ("turn_limit", "token_limit"):  # a truncated rollout is a failure
            verdict = replace(verdict, reward=0.0, success=False)
        recorder.add_verdict(verdict)


async def open_task(recorder: RolloutRecorder, environment: Environment, limits: Limits) -> tuple[InitialMessages, int]:
    """Open the task; where a simulated user begins, append its first message. Returns how many messages were cut."""
    initial = await call_with_timeout("open", lambda: environment.open(recorder.task, recorder.seed), limits.seconds)
    if not initial.ask_user:
        return initial, 0
    reply = await call_with_timeout("user", initial.ask_user, None)
    messages, num_truncated = truncate_observations(reply.messages, limits)
    return replace(initial, messages=(*initial.messages, *messages)), num_truncated


async def count_prompt_tokens(
    recorder: RolloutRecorder, environment: Environment, *, chat: Chat, limits: Limits
) -> int:
    """Tokens of the task's prompt; 0 where the environment cannot open the task (playing it reports the cause)."""
    try:
        initial, _ = await open_task(recorder, environment, limits)
        with break_rollout_on_error("open"):
            return len(chat.encode_prompt(initial.messages, initial.tools).token_ids)
    except RolloutBroken:
        return 0
    finally:
        with suppress(RolloutBroken):
            await call_with_timeout("close", environment.close, limits.seconds)


async def take_reply(
    turn: ParsedTurn, tool_names: frozenset[str], recorder: RolloutRecorder, environment: Environment, *, limits: Limits
) -> tuple[EndReason | None, list[Message]]:
    """Carry out the turn's calls and record them; returns why the rollout ended, if it did, and the truncated reply."""
    answered, reply = await get_reply(turn, tool_names, environment, limits=limits)
    recorder.add_call_results(answered)
    with break_rollout_on_error("reply"):
        end_reason = end_reason_after(answered, reply, num_turns=len(recorder.turns), limits=limits)
        if end_reason:
            recorder.finish(end_reason)
        messages, num_truncated = truncate_observations(reply.messages, limits)
        recorder.add_truncation("observation", num_truncated)
        return end_reason, messages


async def get_reply(
    turn: ParsedTurn, tool_names: frozenset[str], environment: Environment, *, limits: Limits
) -> tuple[ParsedTurn, Reply]:
    """The turn with the outcome of each call, and the environment's reply.

    A turn with a call that cannot be read, or that names an unknown tool, is refused whole: carrying out a part of it
    would leave the policy guessing which part.
    """
    unknown = next((call.name for call in turn.calls if call.name not in tool_names), None)
    malformed = turn.malformed or (f"unknown tool {unknown}" if unknown is not None else "")
    if malformed:
        calls = tuple(replace(call, is_error=True) for call in turn.calls)
        refusal = Reply(({"role": "tool", "content": f"error : {malformed}"},))
        return replace(turn, calls=calls, malformed=malformed), refusal
    reply = await call_with_timeout("reply", lambda: environment.reply(turn), limits.seconds)
    if reply.ask_user:
        reply = await call_with_timeout("user", reply.ask_user, None)
    if reply.calls:
        return replace(turn, calls=reply.calls), reply
    call_errors = reply.call_errors or (False,) * len(turn.calls)
    if len(call_errors) != len(turn.calls):
        raise RolloutBroken(f"reply: expected a flag for each of {len(turn.calls)} calls, got {len(call_errors)}")
    calls = tuple(replace(call, is_error=is_error) for call, is_error in zip(turn.calls, call_errors, strict=True))
    return replace(turn, calls=calls), reply


def end_reason_after(turn: ParsedTurn, reply: Reply, *, num_turns: int, limits: Limits) -> EndReason | None:
    """Why the rollout is over after `reply`, or None where the policy goes on. The token limit is checked elsewhere."""
    if reply.done:
        return "ended" if turn.calls else "answered"
    if num_turns == limits.turns:
        return "turn_limit"
    if not reply.messages:
        raise RolloutBroken("reply: the environment neither answered nor ended the rollout")
    return None


def truncate_observations(messages: Sequence[Message], limits: Limits) -> tuple[list[Message], int]:
    """Cut the middle of every message that is longer than `limits.observation`; returns how many were cut."""
    is_long = [len(message["content"]) > limits.observation for message in messages]
    truncated = [
        {**message, "content": cut_middle(message["content"], limits.observation)} if cut else message
        for message, cut in zip(messages, is_long, strict=True)
    ]
    return truncated, sum(is_long)
