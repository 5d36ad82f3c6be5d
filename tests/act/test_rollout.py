import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scripted_play import CHAT, OPENING, TASK, ScriptedEnvironment, ScriptedSession, tool
from sgcd.act.environment import InitialMessages, Reply
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.records import Call, Rollout, Verdict
from sgcd.seeds import derive_seed

PROMPT = [1, 9, 10, 0, 2, 11, 12, 0, 3]  # <system> be kind <end> <user> find mia <end> <assistant>


async def played(
    script: list[str], environment: ScriptedEnvironment, **limits: float
) -> tuple[Rollout, ScriptedSession]:
    session = ScriptedSession(list(script))
    rollout = await play_rollout(
        RolloutRecorder(TASK, 2, 77), environment, session, chat=CHAT, limits=Limits.model_validate(limits)
    )
    assert session.closed == 1
    assert environment.closed == 1
    return rollout, session


def assert_tokens(rollout: Rollout, response: list[int], mask: list[int], kinds: list[int]) -> None:
    assert rollout.response.tolist() == response
    assert rollout.response_mask.astype(int).tolist() == mask
    assert rollout.token_kinds.tolist() == kinds


async def test_two_turns_to_the_token():
    environment = ScriptedEnvironment(tool("found b12"))
    rollout, session = await played(["<think> find </think> <call> look name mia </call>", "found b12"], environment)
    assert rollout.prompt.tolist() == PROMPT
    assert rollout.reference_position == 7  # before the <end> of the user's message
    assert_tokens(
        rollout,
        # <think> find </think> <call> look name mia </call> <end> <tool> found b12 <end> <assistant> found b12 <end>
        [5, 11, 6, 7, 14, 15, 12, 8, 0, 4, 17, 16, 0, 3, 17, 16, 0],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1],
        [1, 1, 1, 2, 2, 2, 2, 2, 3, 0, 0, 0, 0, 0, 3, 3, 3],
    )
    eighths = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 1, 2, 3]
    assert (-rollout.sampling_logprobs * 8).tolist() == eighths
    assert [(turn.start, turn.stop) for turn in rollout.turns] == [(0, 9), (14, 17)]
    assert rollout.calls == (Call("look", {"name": "mia"}),)
    assert rollout.turns[1].text == "found b12"
    assert [message["role"] for message in rollout.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert session.context == [*PROMPT, *rollout.response]  # token in, token out
    assert rollout.end_reason == "answered"
    assert (rollout.success, rollout.broken, dict(rollout.truncations), rollout.private) == (True, "", {}, ("b12",))
    assert (rollout.name, rollout.seed, rollout.tools) == ("t1/2", 77, OPENING.tools)


async def test_a_failed_tool_is_written_into_the_turn():
    reply = Reply(
        ({"role": "tool", "content": "error : unknown"}, {"role": "tool", "content": "found"}),
        call_errors=(True, False),
    )
    rollout, _ = await played(["<call> look </call> <call> look </call>", "found"], ScriptedEnvironment(reply))
    assert [call.is_error for call in rollout.calls] == [True, False]
    assert rollout.turns[0].malformed == ""


@pytest.mark.parametrize(
    ("said", "observed", "calls"),
    [
        ("<call> look name </call>", "error : look needs a value", ()),
        ("<call> grab </call>", "error : unknown tool grab", (Call("grab", {}, is_error=True),)),
        (  # refused whole: what could have been done is not done either
            "<call> look </call> <call> grab </call>",
            "error : unknown tool grab",
            (Call("look", {}, is_error=True), Call("grab", {}, is_error=True)),
        ),
    ],
)
async def test_a_malformed_call_is_answered_in_words(said: str, observed: str, calls: tuple[Call, ...]):
    environment = ScriptedEnvironment()
    rollout, _ = await played([said, "found"], environment)
    assert rollout.messages[3] == {"role": "tool", "content": observed}
    assert rollout.turns[0].malformed == observed.removeprefix("error : ")
    assert rollout.turns[0].calls == calls
    assert rollout.turns[1].malformed == ""
    assert [heard.text for heard in environment.turns] == ["found"]


async def test_an_unknown_tool_to_the_token():
    rollout, _ = await played(["<call> grab </call>", "found"], ScriptedEnvironment())
    assert_tokens(
        rollout,
        # <call> grab </call> <end> <tool> error : unknown tool grab <end> <assistant> found <end>
        [7, 22, 8, 0, 4, 18, 19, 20, 21, 22, 0, 3, 17, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        [2, 2, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3],
    )


async def test_the_environments_last_words_are_kept_and_open_no_turn():
    over = Reply(({"role": "tool", "content": "found"},), done=True)
    rollout, session = await played(["<call> look </call>"], ScriptedEnvironment(over))
    # <call> look </call> <end> <tool> found <end>
    assert_tokens(rollout, [7, 14, 8, 0, 4, 17, 0], [1, 1, 1, 1, 0, 0, 0], [2, 2, 2, 3, 0, 0, 0])
    assert rollout.end_reason == "ended"
    assert session.context == [*PROMPT, 7, 14, 8, 0]


async def test_the_turn_limit_ends_a_rollout_as_a_failure():
    verdict = Verdict(1.0, True, {"state": True})
    environment = ScriptedEnvironment(tool("found"), tool("b12"), verdict=verdict)
    rollout, _ = await played(["<call> look </call>"] * 2, environment, turns=2)
    assert_tokens(
        rollout,
        # <call> look </call> <end> <tool> found <end> <assistant> <call> look </call> <end> <tool> b12 <end>
        [7, 14, 8, 0, 4, 17, 0, 3, 7, 14, 8, 0, 4, 16, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0],
        [2, 2, 2, 3, 0, 0, 0, 0, 2, 2, 2, 3, 0, 0, 0],
    )
    assert (rollout.end_reason, rollout.truncations) == ("turn_limit", {"turns": 1})
    assert rollout.verdict == Verdict(0.0, False, {"state": True})


async def test_an_answer_in_the_last_turn_is_no_cut():
    rollout, _ = await played(["<call> look </call>", "found"], ScriptedEnvironment(tool("b12")), turns=2)
    assert (rollout.end_reason, rollout.truncations, rollout.success) == ("answered", {}, True)


async def test_the_token_limit_cuts_a_turn_which_is_then_not_carried_out():
    environment = ScriptedEnvironment()
    rollout, _ = await played(["<call> look name mia </call>"], environment, tokens=3)
    assert_tokens(rollout, [7, 14, 15], [1, 1, 1], [2, 2, 2])  # <call> look name
    assert (rollout.end_reason, rollout.truncations, rollout.reward) == ("token_limit", {"tokens": 1}, 0.0)
    assert (rollout.turns[0].calls, rollout.turns[0].malformed) == ((), "")
    assert rollout.messages[-1] == {"role": "assistant", "content": "<call> look name", "unfinished": True}
    assert environment.turns == []


@pytest.mark.parametrize(
    ("tokens", "kept"), [(7, [7, 14, 8, 0]), (8, [7, 14, 8, 0]), (9, [7, 14, 8, 0, 4, 17, 0, 3, 17])]
)
async def test_a_reply_without_room_for_another_word_is_left_out_whole(tokens: int, kept: list[int]):
    # <call> look </call> <end>, then <tool> found <end> <assistant> makes eight, and a word of the policy nine
    rollout, _ = await played(["<call> look </call>", "found"], ScriptedEnvironment(tool("found")), tokens=tokens)
    assert rollout.response.tolist() == kept
    assert (rollout.end_reason, rollout.truncations) == ("token_limit", {"tokens": 1})
    assert CHAT.encode_conversation(rollout.messages, ()).tolist() == [*PROMPT, *kept]


async def test_last_words_without_room_are_left_out_but_the_end_is_the_end():
    over = Reply(({"role": "tool", "content": "found"},), done=True)
    rollout, _ = await played(["<call> look </call>"], ScriptedEnvironment(over), tokens=6)
    assert rollout.response.tolist() == [7, 14, 8, 0]
    assert (rollout.end_reason, rollout.truncations, rollout.success) == ("ended", {"tokens": 1}, True)


async def test_a_long_observation_loses_its_middle():
    environment = ScriptedEnvironment(tool("abcdefghij"), tool("abcde"))
    rollout, _ = await played(["<call> look </call>"] * 2 + ["found"], environment, observation=5)
    assert rollout.messages[3]["content"] == "abc ... 5 characters cut ... ij"
    assert rollout.messages[5]["content"] == "abcde"
    assert rollout.truncations == {"observation": 1}


@pytest.mark.parametrize("keep", [1, 2])
async def test_a_very_short_limit_keeps_no_more_than_it_says(keep: int):
    rollout, _ = await played(["<call> look </call>", "found"], ScriptedEnvironment(tool("abcdef")), observation=keep)
    assert rollout.messages[3]["content"] == ["", "a ... 5 characters cut ... ", "a ... 4 characters cut ... f"][keep]


LOOKED = [7, 14, 8, 0]
BROKEN = {
    "open": (ScriptedEnvironment, {"opening": ValueError("no\ndatabase")}, "open: ValueError: no database", []),
    "opening": (
        ScriptedEnvironment,
        {"opening": InitialMessages(OPENING.messages, ({},))},
        "open: KeyError: 'function'",
        [],
    ),
    "reply": (lambda: ScriptedEnvironment(OSError("gone")), {}, "reply: OSError: gone", LOOKED),
    "exit": (lambda: ScriptedEnvironment(SystemExit(3)), {}, "reply: RuntimeError: it called exit(3)", LOOKED),
    "cancels": (
        lambda: ScriptedEnvironment(asyncio.CancelledError()),
        {},
        "reply: cancelled by the environment itself",
        LOOKED,
    ),
    "silent": (
        lambda: ScriptedEnvironment(Reply()),
        {},
        "reply: the environment neither answered nor ended the rollout",
        LOOKED,
    ),
    "flags": (
        lambda: ScriptedEnvironment(Reply(({"role": "tool", "content": "b12"},), call_errors=(True, True))),
        {},
        "reply: expected a flag for each of 1 calls, got 2",
        LOOKED,
    ),
    "content": (lambda: ScriptedEnvironment(tool(None)), {}, "reply: TypeError", LOOKED),  # type: ignore[arg-type]
    "verify": (ScriptedEnvironment, {"verdict": ValueError("no gold")}, "verify: ValueError: no gold", LOOKED),
    "verdict": (ScriptedEnvironment, {"verdict": 1.0}, "verify: AttributeError", LOOKED),
    "nan": (
        ScriptedEnvironment,
        {"verdict": Verdict(float("nan"), False)},
        "verify: the reward is nan, expected a finite number",
        LOOKED,
    ),
    "private": (ScriptedEnvironment, {"private": ValueError("locked")}, "private: ValueError: locked", LOOKED),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_an_environment_raises_breaks_the_rollout_and_keeps_what_was_played(name: str):
    make, told, cause, response = BROKEN[name]
    rollout, _ = await played(["<call> look </call>"], make(**told))
    assert rollout.broken.startswith(cause)
    assert "\n" not in rollout.broken
    assert (rollout.end_reason, rollout.verdict, rollout.success) == ("broken", None, False)
    assert rollout.response.tolist() == response
    assert rollout.prompt.tolist() == (PROMPT if response else [])


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        (ScriptedEnvironment(opening=None), "open: timed out after 0.02 s"),
        (ScriptedEnvironment(None), "reply: timed out after 0.02 s"),
        (ScriptedEnvironment(verdict=None), "verify: timed out after 0.02 s"),
    ],
)
async def test_an_environment_that_hangs_breaks_the_rollout(environment: ScriptedEnvironment, cause: str):
    rollout, _ = await played(["<call> look </call>"], environment, seconds=0.02)
    assert rollout.broken == cause


async def test_an_environment_that_ignores_its_cancellation_is_left_behind():
    class Stubborn(ScriptedEnvironment):
        async def reply(self, said):
            while True:
                try:
                    await asyncio.sleep(0.2)
                    raise ValueError("too late, and nobody hears of it")
                except asyncio.CancelledError:
                    pass

    rollout, _ = await asyncio.wait_for(played(["<call> look </call>"], Stubborn(), seconds=0.02), 0.15)
    assert rollout.broken == "reply: timed out after 0.02 s"


async def test_a_close_that_fails_does_not_take_the_verdict_away(caplog: pytest.LogCaptureFixture):
    class Sticky(ScriptedEnvironment):
        async def close(self):
            await super().close()
            raise OSError("still open")

    rollout, _ = await played(["found"], Sticky())
    assert rollout.success
    assert "task t1, sibling 2: close: OSError: still open" in caplog.text


async def test_what_the_sampler_raises_passes_through_and_all_is_closed():
    session = ScriptedSession([], failure=MemoryError("no room"))
    environment = ScriptedEnvironment()
    with pytest.raises(MemoryError, match="no room"):
        await play_rollout(RolloutRecorder(TASK, 0, 0), environment, session, chat=CHAT, limits=Limits())
    assert (session.closed, environment.closed) == (1, 1)


async def test_a_cancelled_rollout_closes_all():
    session, environment = ScriptedSession(["<call> look </call>"]), ScriptedEnvironment(None)
    task = asyncio.create_task(
        play_rollout(RolloutRecorder(TASK, 0, 0), environment, session, chat=CHAT, limits=Limits())
    )
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (session.closed, environment.closed) == (1, 1)


def test_seeds_are_the_same_everywhere_and_all_parts_matter():
    assert derive_seed(1, 4, "train-0007", 0) == 1601756030196604899
    assert (
        len(
            {
                derive_seed(1, "12"),
                derive_seed(1, 12),
                derive_seed(11, "2"),
                derive_seed("1", "12"),
                derive_seed(1, "1", "2"),
            }
        )
        == 5
    )
    assert all(0 <= derive_seed(part) < 2**63 for part in range(100))


TURNS = st.sampled_from(
    ["found b12", "<call> look </call>", "<call> look name </call>", "<call> grab </call>", "<think> find </think> get"]
)
REPLIES = st.sampled_from(
    [
        tool("found"),
        tool("found b12 mia kind"),
        Reply(done=True),
        Reply(({"role": "user", "content": "get b12"},), done=True),
    ]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=5), st.lists(REPLIES, max_size=4), st.integers(1, 40), st.integers(1, 5))
def test_whatever_is_said_the_tokens_agree_with_the_messages_and_with_what_was_fed(
    turns: list[str], replies: list[Reply], tokens: int, most: int
):
    turns = turns + ["found"] * 5
    rollout, session = asyncio.run(played(turns, ScriptedEnvironment(*replies), tokens=tokens, turns=most))
    whole = [*PROMPT, *rollout.response.tolist()]
    assert CHAT.encode_conversation(rollout.messages, ()).tolist() == whole
    assert session.context == whole[: len(session.context)]
    assert not rollout.response_mask[len(session.context) - len(PROMPT) :].any()
    assert len(rollout.response) <= tokens
    assert 1 <= len(rollout.turns) <= most
    assert ((rollout.token_kinds > 0) == rollout.response_mask).all()
    spans = np.concatenate([np.arange(turn.start, turn.stop) for turn in rollout.turns])
    assert spans.tolist() == np.flatnonzero(rollout.response_mask).tolist()
    assert rollout.success == (rollout.end_reason in ("answered", "ended"))
