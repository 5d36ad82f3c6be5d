import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from helpers.scripted_play import CHAT, ScriptedSession
from sgcd.act import settings
from sgcd.act.environments import worker_thread as aside
from sgcd.act.environments.own import OwnEnvironment
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.act.tools import build_tools
from sgcd.records import Rollout, Task, Verdict

ROW = {"id": "g1", "prompt": "guess a word", "secret": "kind", "private": ["kind"]}


class Guess:
    """Guess a word: sync and async tools, and everything that can go wrong."""

    hold = threading.Event()
    closed = 0

    def reset(self, secret: str, **row: Any) -> str | None:
        self.secret, self.right, self.thread = secret, False, threading.get_ident()
        return row.get("begin")

    def look(self, name: str) -> str:
        """Compare a word."""
        assert threading.get_ident() == self.thread != threading.main_thread().ident
        self.right = name == self.secret
        return "found" if self.right else "error"

    async def find(self, name: str) -> dict[str, Any]:
        """Compare a word, after a while."""
        await asyncio.sleep(0.001)
        self.right = name == self.secret
        return {"right": self.right}

    def grab(self, how: str) -> None:
        """Go wrong."""
        match how:
            case "raise":
                raise ValueError("hands\noff")
            case "silent":
                raise KeyError
            case "next":
                next(iter(()))
            case "exit":
                raise SystemExit(2)
            case "hang":
                self.hold.wait(10)
            case _:
                time.sleep(10)

    def get_reward(self) -> float:
        return float(self.right)

    def close(self) -> None:
        type(self).closed += 1


def told(**more: Any) -> settings.OwnEnvironmentSettings:
    return settings.OwnEnvironmentSettings.model_validate({"name": "own", "class": "m:C", "tasks": "t.jsonl", **more})


async def played(plain: type, *turns: str, row: dict[str, Any] = ROW, seconds: float = 5, **more: Any) -> Rollout:
    environment = OwnEnvironment(plain, build_tools(plain), told(**more))
    session = ScriptedSession(list(turns))
    recorder = RolloutRecorder(Task(row.get("id", "1"), "action", row), 0, 0)
    rollout = await play_rollout(recorder, environment, session, chat=CHAT, limits=Limits(seconds=seconds))
    assert session.closed == 1
    return rollout


async def test_private_literals_may_be_declared_by_kind():
    rollout = await played(Guess, "done", row={**ROW, "private": {"word": ["kind", "gentle"], "name": ["mia"]}})
    assert rollout.private == ("kind", "gentle", "mia")
    assert rollout.private_kinds == {"kind": "word", "gentle": "word", "mia": "name"}


def observations(rollout: Rollout) -> list[str]:
    return [message["content"] for message in rollout.messages if message["role"] == "tool"]


async def test_a_task_is_played_with_sync_and_async_tools():
    rollout = await played(
        Guess, "<call> look name mia </call>", "<call> find name kind </call>", "done", system="be kind"
    )
    assert [dict(message) for message in rollout.messages] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "guess a word"},
        {"role": "assistant", "content": "<call> look name mia </call>"},
        {"role": "tool", "name": "look", "content": "error"},
        {"role": "assistant", "content": "<call> find name kind </call>"},
        {"role": "tool", "name": "find", "content": '{"right": true}'},
        {"role": "assistant", "content": "done"},
    ]
    assert (rollout.end_reason, rollout.success, rollout.private) == ("answered", True, ("kind",))
    assert rollout.reference_position == 8  # before the <end> of the task
    assert [tool["function"]["name"] for tool in rollout.tools] == ["find", "grab", "look"]


async def test_without_a_system_message_the_task_is_the_harness():
    rollout = await played(Guess, "done")
    assert rollout.reference_position == len(rollout.prompt) - 2  # before the <end> that <assistant> follows
    assert not rollout.success


@pytest.mark.parametrize(
    ("prompt", "begin", "expected"),
    [
        ("guess", "five letters", [("user", "guess\n\nfive letters")]),
        (None, "five letters", [("user", "five letters")]),
        ("guess", {"left": 5}, [("user", 'guess\n\n{"left": 5}')]),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "c",
            [("user", "a"), ("assistant", "b"), ("user", "c")],
        ),
    ],
)
async def test_what_reset_returns_follows_the_prompt(prompt: Any, begin: Any, expected: list[tuple[str, str]]):
    row = {"secret": "kind", "begin": begin} | ({} if prompt is None else {"prompt": prompt})
    rollout = await played(Guess, "done", row=row)
    assert [(message["role"], message["content"]) for message in rollout.messages[:-1]] == expected


async def test_a_task_that_says_nothing_is_broken():
    rollout = await played(Guess, row={"secret": "kind"}, system="be kind")
    assert rollout.broken == "open: ValueError: the task says nothing: its row has no prompt and reset() returned none"


@pytest.mark.parametrize(
    ("call", "observed"),
    [
        ("grab how raise", "error : hands\noff"),
        ("grab how silent", "error : KeyError"),
        ("grab how next", "error : StopIteration"),
        ("grab how exit", "error : SystemExit: 2"),
        ("grab", "error : grab needs the argument how"),
        ("look nam mia", "error : look has no argument nam"),
    ],
)
async def test_a_tool_that_raises_is_an_observation_and_a_failed_call(call: str, observed: str):
    rollout = await played(Guess, f"<call> {call} </call>", "<call> look name kind </call>", "done")
    assert observations(rollout) == [observed, "found"]
    assert [call.is_error for call in rollout.calls] == [True, False]
    assert rollout.success


async def test_a_tool_that_hangs_breaks_its_rollout_and_no_other():
    Guess.hold.clear()
    Guess.closed = 0
    started = time.monotonic()
    hanging, fine = await asyncio.gather(
        played(Guess, "<call> grab how hang </call>", seconds=0.1),
        played(Guess, "<call> look name kind </call>", "done"),
    )
    assert hanging.broken == "reply: timed out after 0.1 s"
    assert fine.success
    assert time.monotonic() - started < 1
    assert Guess.closed == 1  # the other is closed when its call comes back
    assert len(aside._abandoned) == 1
    left = [thread for thread in threading.enumerate() if thread.name == "sgcd-environment"]
    assert left
    assert all(thread.daemon for thread in left)  # it would not keep the program from ending
    Guess.hold.set()
    await until(lambda: Guess.closed == 2 and not aside._abandoned)


async def test_threads_end_with_their_rollouts():
    await asyncio.gather(*(played(Guess, "<call> look name kind </call>", "done") for _ in range(5)))
    await until(lambda: not any(thread.name == "sgcd-environment" for thread in threading.enumerate()))


async def test_when_too_many_calls_never_came_back_no_more_threads_are_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aside, "MAX_ABANDONED_CALLS", 2)
    Guess.hold.clear()
    for _ in range(2):
        await played(Guess, "<call> grab how hang </call>", seconds=0.05)
    rollout = await played(Guess, "done")
    assert rollout.broken.startswith("open: RuntimeError: 2 calls of tools were given up on and still run")
    Guess.hold.set()
    await until(lambda: not aside._abandoned)
    assert not (await played(Guess, "done")).broken


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


class Late(Guess):
    async def get_reward(self) -> float:
        return 0.5


class Unsure(Guess):
    def get_reward(self) -> Any:
        return None


class Unmade(Guess):
    def __init__(self):
        raise OSError("no server")


class Unready(Guess):
    def reset(self, **row: Any) -> str:
        raise KeyError("secret")


class Slow(Guess):
    def get_reward(self) -> float:
        self.hold.wait(10)
        return 1.0


@pytest.mark.parametrize(
    ("plain", "cause"),
    [
        (Unsure, "verify: TypeError: get_reward() returned None, expected a finite number"),
        (Unmade, "open: OSError: no server"),
        (Unready, "open: KeyError: 'secret'"),
        (Slow, "verify: timed out after 0.1 s"),
    ],
)
async def test_a_class_that_fails_breaks_the_rollout(plain: type, cause: str):
    Guess.hold.clear()
    rollout = await played(plain, "done", seconds=0.1 if plain is Slow else 60)
    Guess.hold.set()
    assert rollout.broken == cause


@pytest.mark.parametrize(("threshold", "success"), [(1.0, False), (0.5, True)])
async def test_success_begins_at_the_reward_that_the_recipe_names(threshold: float, success: bool):
    rollout = await played(Late, "done", success=threshold)
    assert (rollout.reward, rollout.success) == (0.5, success)


class Graded(Guess):
    def get_reward(self) -> Any:
        return {"right": 1.0, "brief": 0.5}


@pytest.mark.parametrize(("weights", "reward"), [({}, 1.5), ({"brief": 0.2}, 1.1), ({"right": 0, "brief": -1}, -0.5)])
async def test_named_rewards_are_added_up_by_their_weights(weights: dict[str, float], reward: float):
    rollout = await played(Graded, "done", reward_weights=weights)
    assert rollout.verdict == Verdict(reward, reward >= 1, {"rewards": {"right": 1.0, "brief": 0.5}})


async def test_a_weight_without_a_reward_breaks_the_rollout():
    rollout = await played(Graded, "done", reward_weights={"long": 1.0})
    expected = "verify: ValueError: environment.reward_weights names long; the rewards are right, brief"
    assert rollout.broken == expected


class Named(Guess):
    def get_reward(self) -> Any:
        return {"right": "yes"}


class Nameless(Guess):
    def get_reward(self) -> Any:
        return {}


async def test_no_reward_at_all_is_named():
    rollout = await played(Nameless, "done")
    assert rollout.broken == "verify: TypeError: get_reward() returned {}, expected a finite number"


async def test_a_named_reward_that_is_no_number_is_named():
    rollout = await played(Named, "done")
    assert rollout.broken == "verify: TypeError: get_reward(), right returned 'yes', expected a finite number"
