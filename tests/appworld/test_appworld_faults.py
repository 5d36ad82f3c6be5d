"""Worlds that are killed, stopped or endless, among others that play on: none is lost, and none is counted wrongly."""

import asyncio
import os
import random
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.appworld_plays import Servers, block, solution, wrong
from sgcd.act.environments.appworld import AppWorldEnvironment
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.rollout import open_task, take_reply, verify_and_close
from sgcd.act.settings import Limits
from sgcd.records import Rollout, Task

pytestmark = pytest.mark.slow

EPISODES = int(os.environ.get("APPWORLD_EPISODES", "24"))
SIDE_BY_SIDE = 8
KINDS = ("solved", "wrong", "killed before", "killed within", "stopped", "endless", "server killed")
ENDLESS = "while True:\n    try:\n        [0 for _ in iter(int, 1)]\n    except BaseException: pass"
"""Code that catches its time limit. An exception in a loop's own jump would not be caught, so the loop is elsewhere."""


@dataclass
class Play:
    """One episode and what shall happen to it."""

    number: int
    task: str
    kind: str

    @property
    def limits(self) -> Limits:
        return Limits(turns=30, tokens=100_000, seconds=15 if self.kind == "stopped" else 300)


def draw_plays(count: int) -> list[Play]:
    """Every kind at least once, the server's death once alone, and the rest by chance."""
    rng = random.Random(7)
    kinds = [*KINDS, *rng.choices(KINDS[:5], weights=(4, 2, 1, 1, 1), k=count - len(KINDS))]
    rng.shuffle(kinds)
    return [Play(number, f"mini000{rng.randint(1, 2)}_{rng.randint(1, 3)}", kind) for number, kind in enumerate(kinds)]


async def play(each: Play, servers: Servers) -> Rollout:
    task = Task(each.task, "difficulty_1", {"benchmark_id": each.task})
    environment = AppWorldEnvironment(servers.worlds, servers.verdicts)
    recorder, limits = RolloutRecorder(task, each.number, each.number), each.limits
    interference: asyncio.Task[None] | None = None
    async with verify_and_close(recorder, environment, limits):
        opening = each.limits.model_copy(update={"seconds": 300.0})
        initial, _ = await open_task(recorder, environment, opening)
        recorder.add_prompt(initial)
        instruction = str(initial.messages[-1]["content"])
        interference = asyncio.create_task(interfere(each, environment, servers))
        for code in ("print(1)", code_of(each, instruction)):
            turn = block(code)
            recorder.add_turn(turn, {"role": "assistant", "content": turn.text})
            end, messages = await take_reply(turn, frozenset(), recorder, environment, limits=limits)
            recorder.add_reply(messages)
            if end:
                break
            if each.kind in ("killed before", "stopped", "server killed"):
                await interference
        else:
            recorder.finish("turn_limit")
    if interference:
        await interference
    return recorder.build_rollout()


def code_of(each: Play, instruction: str) -> str:
    if each.kind == "wrong":
        return wrong(each.task, instruction)
    if each.kind == "endless":
        return ENDLESS
    if each.kind == "killed within":
        return "while True: pass"
    return solution(each.task, instruction)


async def interfere(each: Play, environment: AppWorldEnvironment, servers: Servers) -> None:
    """Kill or stop the world of the play, before its second turn or within it, or kill the server of all worlds."""
    world = environment._process  # pyright: ignore
    if each.kind == "killed before":
        signal.pidfd_send_signal(world, signal.SIGKILL)
    elif each.kind == "killed within":
        await asyncio.sleep(1.0)
        signal.pidfd_send_signal(world, signal.SIGKILL)
    elif each.kind == "stopped":
        signal.pidfd_send_signal(world, signal.SIGSTOP)
    elif each.kind == "server killed":
        os.kill(servers.worlds._process.pid, signal.SIGKILL)  # pyright: ignore


async def test_random_kills(servers: Servers) -> None:
    plays = draw_plays(EPISODES)
    semaphore = asyncio.Semaphore(SIDE_BY_SIDE)
    before = left_folders()

    async def guarded(each: Play) -> Rollout:
        async with semaphore:
            return await play(each, servers)

    rollouts = await asyncio.gather(*(guarded(each) for each in plays))
    assert [rollout.sibling for rollout in rollouts] == [*range(EPISODES)]
    outcomes = Counter(
        (each.kind, "broken" if rollout.broken else "solved" if rollout.success else "failed")
        for each, rollout in zip(plays, rollouts, strict=True)
    )
    expected = Counter(
        (
            each.kind,
            {"solved": "solved", "server killed": "solved", "wrong": "failed", "endless": "failed"}.get(
                each.kind, "broken"
            ),
        )
        for each in plays
    )
    assert outcomes == expected, [(each.kind, rollout.broken) for each, rollout in zip(plays, rollouts, strict=True)]
    hung = [r for each, r in zip(plays, rollouts, strict=True) if each.kind == "endless"]
    assert [rollout.verdict and rollout.verdict.facts for rollout in hung] == [{"hung": True}] * len(hung)
    assert left_folders() == before
    for _ in range(100):
        if children_of(servers):
            await asyncio.sleep(0.1)
    assert children_of(servers) == []


def left_folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("sgcd-appworld-*")}


def children_of(servers: Servers) -> list[int]:
    pids = [server._process.pid for server in (servers.worlds, servers.verdicts) if server._process]  # pyright: ignore
    return [int(child) for pid in pids for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
