"""64 rollouts of one class side by side: each has an object of its own, and no call of one is seen by another."""

import asyncio
import time
from typing import Any

import pytest

from helpers.scripted_play import CHAT, ScriptedSession
from sgcd.act import settings
from sgcd.act.environments.own import OwnEnvironment
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.act.tools import build_tools
from sgcd.records import Rollout, Task

COUNT = 64
NAMES = ("mia", "kind", "b12")


class Visits:
    """Whom the policy called on, in order; both tools read, wait and then write: a shared list would lose some."""

    def reset(self, wanted: list[str], **row: Any) -> None:
        self.wanted = wanted
        self.seen: list[str] = []

    async def find(self, name: str) -> str:
        """Find somebody, after a while."""
        seen = self.seen
        await asyncio.sleep(0.002)
        self.seen = [*seen, name]
        return "found"

    def look(self, name: str) -> str:
        """Look for somebody, on a thread."""
        seen = self.seen
        time.sleep(0.002)
        self.seen = [*seen, name]
        return "found"

    def get_reward(self) -> float:
        return float(self.seen == self.wanted)


class SharedVisits(Visits):
    """The mistake that an author can make: the list belongs to the class, so all rollouts write into one."""

    everybody: list[str] = []  # noqa: RUF012

    def reset(self, wanted: list[str], **row: Any) -> None:
        self.wanted = wanted
        self.everybody.clear()

    @property
    def seen(self) -> list[str]:  # type: ignore[override]
        return self.everybody

    @seen.setter
    def seen(self, names: list[str]) -> None:
        self.everybody[:] = names


async def play(cls: type, number: int) -> Rollout:
    wanted = [NAMES[number % 3], NAMES[number // 3 % 3], NAMES[number // 9 % 3]]
    turns = [f"<call> {('find', 'look')[(number + i) % 2]} name {name} </call>" for i, name in enumerate(wanted)]
    row = {"id": f"t{number}", "prompt": "find", "wanted": wanted}
    config = settings.OwnEnvironmentSettings.model_validate({"name": "own", "class": "m:C", "tasks": "t.jsonl"})
    environment = OwnEnvironment(cls, build_tools(cls), config)
    recorder = RolloutRecorder(Task(row["id"], "action", row), 0, number)
    return await play_rollout(
        recorder, environment, ScriptedSession([*turns, "done"]), chat=CHAT, limits=Limits(seconds=60)
    )


@pytest.mark.parametrize(("cls", "all_succeed"), [(Visits, True), (SharedVisits, False)])
async def test_rollouts_side_by_side_share_nothing_unless_their_class_does(cls: type, all_succeed: bool) -> None:
    rollouts = await asyncio.gather(*(play(cls, number) for number in range(COUNT)))
    assert [rollout.broken for rollout in rollouts] == [""] * COUNT
    assert all(rollout.success for rollout in rollouts) == all_succeed
