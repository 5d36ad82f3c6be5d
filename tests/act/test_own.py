import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from scripted import CHAT, ScriptedSession

from sgcd.act import aside, settings
from sgcd.act.own import OwnEnvironment, own_stage
from sgcd.act.rollout import play
from sgcd.act.settings import Limits
from sgcd.act.tools import tools_of
from sgcd.errors import EnvironmentFault
from sgcd.records import Rollout, Task

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


def told(**more: Any) -> settings.OwnEnvironment:
    return settings.OwnEnvironment.model_validate({"name": "own", "class": "m:C", "tasks": "t.jsonl", **more})


async def played(plain: type, *turns: str, row: dict[str, Any] = ROW, seconds: float = 5, **more: Any) -> Rollout:
    environment = OwnEnvironment(plain, tools_of(plain), told(**more))
    session = ScriptedSession(list(turns))
    rollout = await play(
        Task(row.get("id", "1"), "action", row), environment, CHAT, session, Limits(seconds=seconds), 0, 0
    )
    assert session.closed == 1
    return rollout


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
    assert (rollout.ending, rollout.success, rollout.private) == ("answered", True, ("kind",))
    assert rollout.insert_at == 3  # in the system message
    assert [tool["function"]["name"] for tool in rollout.tools] == ["find", "grab", "look"]


async def test_without_a_system_message_the_task_is_the_harness():
    rollout = await played(Guess, "done")
    assert rollout.insert_at == len(rollout.prompt) - 2  # before the <end> that <assistant> follows
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
    assert [call.failed for call in rollout.calls] == [True, False]
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
    assert len(aside._overdue) == 1
    left = [thread for thread in threading.enumerate() if thread.name == "sgcd-aside"]
    assert left
    assert all(thread.daemon for thread in left)  # it would not keep the program from ending
    Guess.hold.set()
    await until(lambda: Guess.closed == 2 and not aside._overdue)


async def test_threads_end_with_their_rollouts():
    await asyncio.gather(*(played(Guess, "<call> look name kind </call>", "done") for _ in range(5)))
    await until(lambda: not any(thread.name == "sgcd-aside" for thread in threading.enumerate()))


async def test_when_too_many_calls_never_came_back_no_more_threads_are_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aside, "MOST_OVERDUE", 2)
    Guess.hold.clear()
    for _ in range(2):
        await played(Guess, "<call> grab how hang </call>", seconds=0.05)
    rollout = await played(Guess, "done")
    assert rollout.broken.startswith("open: RuntimeError: 2 calls of tools were given up on and still run")
    Guess.hold.set()
    await until(lambda: not aside._overdue)
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
        (Unsure, "verify: TypeError: get_reward() returned None, expected a number"),
        (Unmade, "open: OSError: no server"),
        (Unready, "open: KeyError: 'secret'"),
        (Slow, "verify: timed out after 0.1 s"),
    ],
)
async def test_a_class_that_fails_breaks_the_rollout(plain: type, cause: str):
    Guess.hold.clear()
    rollout = await played(plain, "done", seconds=0.1)
    Guess.hold.set()
    assert rollout.broken == cause


@pytest.mark.parametrize(("threshold", "success"), [(1.0, False), (0.5, True)])
async def test_success_begins_at_the_reward_that_the_recipe_names(threshold: float, success: bool):
    rollout = await played(Late, "done", success=threshold)
    assert (rollout.reward, rollout.success) == (0.5, success)


# -- the class and its tasks, as a recipe names them ------------------------------------------------------------------

SOURCE = '''
class Room:
    def reset(self, target, prompt="walk"):
        self.target, self.at, self.prompt = target, "", prompt

    def go(self, to: str) -> str:
        """Go somewhere."""
        self.at = to
        return "you are in " + to


class Judged(Room):
    def get_reward(self):
        return self.at == self.target


class Needy(Judged):
    def __init__(self, server):
        pass


class Still:
    def go(self, to: str) -> str:
        """Go somewhere."""


def walk():
    pass


def arrived(room, answer):
    return (room.at == room.target) + (answer == "here")
'''


NUMBERS = count()


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Write a module and a file of tasks into the current folder, and make a stage of them."""
    module = f"room_{next(NUMBERS)}"
    (tmp_path / f"{module}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def make(lines: str, /, name: str = "Judged", **more: Any) -> Any:
        (tmp_path / "tasks.jsonl").write_text(lines.replace("MODULE", module))
        values = {"name": "own", "class": name if ":" in name else f"{module}:{name}", "tasks": "tasks.jsonl"} | more
        return own_stage(settings.OwnEnvironment.model_validate(values))

    return make


def test_tasks_are_read_in_order_with_line_numbers_where_they_have_no_id(room: Callable[..., Any], tmp_path: Path):
    (tmp_path / "dev.jsonl").write_text('{"target": "hall"}')
    rows = [
        '{"target": "attic"}',
        "",
        '{"id": "a", "category": "information", "target": "\u2028x"}',
        '{"id": 7, "target": "y"}',
    ]
    stage = room("\n".join(rows) + "\n", dev="dev.jsonl")
    assert [(task.id, task.category) for task in stage.splits["train"]] == [
        ("1", "action"),
        ("a", "information"),
        ("7", "action"),
    ]
    assert stage.splits["train"][1].row["target"] == "\u2028x"
    assert [task.id for task in stage.splits["dev"]] == ["1"]
    assert set(stage.splits) == {"train", "dev"}


async def test_reset_gets_what_it_asks_for_and_a_row_may_name_its_verifier(room: Callable[..., Any]):
    row = {"id": "a", "prompt": "go to the attic", "target": "attic", "verifier": "MODULE:arrived"}
    stage = room(json.dumps(row), name="Room", success=2)
    task = stage.splits["train"][0]

    async def reward(*turns: str) -> tuple[float, bool]:
        rollout = await play(task, stage.environment(), CHAT, ScriptedSession(list(turns)), Limits(), 0, 0)
        assert (
            rollout.prompt.tolist() == CHAT.open([{"role": "user", "content": "go to the attic"}], (), 0).ids.tolist()
        )
        return rollout.reward, rollout.success

    assert await reward("<call> go to attic </call>", "here") == (2.0, True)
    assert await reward("<call> go to attic </call>", "somewhere") == (1.0, False)
    assert await reward("<call> go to hall </call>", "somewhere") == (0.0, False)


GOOD = '{"target": "attic"}\n'
FAULTS = [
    ({"name": "no_such_module_here:Room"}, GOOD, "environment.class: no_such_module_here cannot be imported"),
    ({"name": "Judgd"}, GOOD, "has no 'Judgd'; did you mean Judged?"),
    ({"name": "walk"}, GOOD, "walk is not a class; expected module:Class"),
    ({"name": "Still"}, GOOD, "Still has no reset(); expected a method that begins a task"),
    ({"name": "Needy"}, GOOD, "Needy cannot be made without arguments (missing a required argument: 'server')"),
    ({"name": "Room"}, GOOD, "tasks.jsonl, line 1: the task has no verifier; expected Room.get_reward()"),
    ({"tasks": "none.jsonl"}, GOOD, "environment.tasks: none.jsonl cannot be read (No such file or directory)"),
    ({"dev": "none.jsonl"}, GOOD, "environment.dev: none.jsonl cannot be read"),
    ({}, "\n\n", "environment.tasks: tasks.jsonl holds no task; expected JSON lines"),
    ({}, GOOD + "{target: 3}", "tasks.jsonl, line 2: not JSON (Expecting property name"),
    ({}, GOOD + "[3]", "tasks.jsonl, line 2: expected an object with what reset() takes, got [3]"),
    (
        {},
        '{"targt": "attic"}',
        "tasks.jsonl, line 1: the row does not fit Judged.reset(self, target, prompt='walk'): missing",
    ),
    (
        {},
        '{"target": "attic", "size": 3}',
        "line 1: the row does not fit Judged.reset(self, target, prompt='walk'): got an",
    ),
    ({}, '{"id": "2", "target": "x"}\n' + GOOD, "tasks.jsonl, line 2: the id '2' was used before"),
    ({}, '{"id": 1.5, "target": "x"}', "line 1: id must be a string or a whole number, got 1.5"),
    (
        {},
        '{"category": "fun", "target": "x"}',
        "line 1: category must be one of action, information, transfer, no_action",
    ),
    ({}, '{"prompt": 3, "target": "x"}', "line 1: prompt must be a string or a list of messages with role and content"),
    ({}, '{"prompt": [{"role": "user"}], "target": "x"}', "line 1: prompt must be a string or a list of messages"),
    ({}, '{"private": "x", "target": "x"}', "line 1: private must be a list of strings, got 'x'"),
    ({}, '{"verifier": "MODULE:arived", "target": "x"}', "has no 'arived'; did you mean arrived?"),
    ({}, '{"verifier": 3, "target": "x"}', "line 1: verifier must name a function as module:function, got 3"),
]


@pytest.mark.parametrize(("more", "tasks", "words"), FAULTS)
def test_every_fault_is_one_line_that_says_where(
    room: Callable[..., Any], more: dict[str, Any], tasks: str, words: str
):
    with pytest.raises(EnvironmentFault) as fault:
        room(tasks, **more)
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_not_text_is_refused(room: Callable[..., Any], tmp_path: Path):
    (tmp_path / "photo.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EnvironmentFault, match=r"photo\.jsonl cannot be read \(not UTF-8\)"):
        room(GOOD, tasks="photo.jsonl")
