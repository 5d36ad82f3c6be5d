import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from helpers.scripted_play import CHAT, ScriptedSession
from sgcd.act import settings
from sgcd.act.environments.own import own_tasks
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.errors import EnvironmentFault, SgcdError

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


def score(room, row):
    return {"nan": float("nan"), "text": "1.0"}.get(row["target"], room.at == row["target"])


def lost(room, row):
    raise LookupError("no map")


def narrow(room):
    return 0.0


FIVE = 5
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
        more = {key: str(value).replace("MODULE", module) for key, value in more.items()}
        values = {"name": "own", "class": name if ":" in name else f"{module}:{name}", "tasks": "tasks.jsonl"} | more
        return own_tasks(settings.OwnEnvironmentSettings.model_validate(values))

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


ROW = '{"prompt": "go to the attic", "target": "attic"}'


async def play(stage: Any, *turns: str) -> Any:
    return await play_rollout(
        RolloutRecorder(stage.splits["train"][0], 0, 0),
        stage.environment_factory(),
        ScriptedSession(list(turns)),
        chat=CHAT,
        limits=Limits(),
    )


async def test_reset_gets_what_it_asks_for_and_a_row_may_name_its_verifier(room: Callable[..., Any]):
    row = {"id": "a", "prompt": "go to the attic", "target": "attic", "verifier": "MODULE:arrived"}
    stage = room(json.dumps(row), name="Room", success=2)

    async def reward(*turns: str) -> tuple[float, bool]:
        rollout = await play(stage, *turns)
        assert (
            rollout.prompt.tolist()
            == CHAT.encode_prompt([{"role": "user", "content": "go to the attic"}], ()).token_ids.tolist()
        )
        return rollout.reward, rollout.success

    assert await reward("<call> go to attic </call>", "here") == (2.0, True)
    assert await reward("<call> go to attic </call>", "somewhere") == (1.0, False)
    assert await reward("<call> go to hall </call>", "somewhere") == (0.0, False)


async def test_the_recipe_may_name_the_reward_of_a_class_that_has_none(room: Callable[..., Any]):
    stage = room(ROW, name="Room", reward="MODULE:score")
    assert (await play(stage, "<call> go to attic </call>", "here")).reward == 1
    assert (await play(stage, "<call> go to hall </call>", "here")).reward == 0
    both = room(json.dumps({**json.loads(ROW), "verifier": "MODULE:arrived"}), name="Room", reward="MODULE:lost")
    assert (await play(both, "<call> go to attic </call>", "here")).reward == 2  # the row's own verifier comes first


@pytest.mark.parametrize(
    ("target", "function", "words"),
    [
        ("nan", "score", ":score returned nan, expected a finite number"),
        ("text", "score", ":score returned '1.0', expected a finite number"),
        ("attic", "lost", "LookupError: no map"),
    ],
)
async def test_a_reward_that_is_no_number_breaks_the_rollout(
    room: Callable[..., Any], target: str, function: str, words: str
):
    stage = room(json.dumps({"prompt": "go", "target": target}), name="Room", reward=f"MODULE:{function}")
    assert words in (await play(stage, "here")).broken


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
    ({}, '{"private": "x", "target": "x"}', "line 1: private must be a list of strings, or such lists by kind"),
    ({}, '{"private": {"Card": ["x"]}, "target": "x"}', "being a small word, got {'Card': ['x']}"),
    ({}, '{"private": {"card": "x"}, "target": "x"}', "line 1: private must be a list of strings, or such lists by"),
    ({}, '{"verifier": "MODULE:arived", "target": "x"}', "has no 'arived'; did you mean arrived?"),
    ({}, '{"verifier": "MODULE:FIVE", "target": "x"}', ":FIVE is no function but int; it must take the object and"),
    ({"reward": "MODULE:scor"}, GOOD, "environment.reward: room_"),
    ({"reward": "MODULE:scor"}, GOOD, "has no 'scor'; did you mean score?"),
    ({"reward": "nowhere:score"}, GOOD, "environment.reward: nowhere cannot be imported (ModuleNotFoundError"),
    ({"reward": "MODULE:FIVE"}, GOOD, ":FIVE is no function but int; it must take the object and the task's row"),
    ({"reward": "MODULE:narrow"}, GOOD, ":narrow(room) does not fit (too many positional arguments); it must take"),
    ({}, '{"verifier": 3, "target": "x"}', "line 1: verifier must name a function as module:function, got 3"),
]


@pytest.mark.parametrize(("more", "tasks", "words"), FAULTS)
def test_every_fault_is_one_line_that_says_where(
    room: Callable[..., Any], more: dict[str, Any], tasks: str, words: str
):
    with pytest.raises(SgcdError) as fault:
        room(tasks, **more)
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_not_text_is_refused(room: Callable[..., Any], tmp_path: Path):
    (tmp_path / "photo.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EnvironmentFault, match=r"photo\.jsonl cannot be read \(not UTF-8\)"):
        room(GOOD, tasks="photo.jsonl")
