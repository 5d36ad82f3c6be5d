"""What goes wrong around the benchmark costs one observation or one rollout, and nothing stays behind."""

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import Server
from helpers.simulated_users import calls, says
from sgcd.act.environments.airline import AirlineEnvironment
from sgcd.act.environments.airline.description import Domain, airline_process
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.cli import main
from sgcd.records import Call, ParsedTurn, Task

pytestmark = pytest.mark.slow
TASK = Task("airline-26", "no_action", {})


def turn(name: str, **arguments: Any) -> ParsedTurn:
    return ParsedTurn("", "", (Call(name, arguments),))


async def opened(domain: Domain, process: BenchmarkProcess) -> AirlineEnvironment:
    environment = AirlineEnvironment(domain, process, user=None)
    await environment.open(TASK, seed=0)
    return environment


async def test_a_call_that_hangs_is_an_observation(domain: Domain, process: BenchmarkProcess) -> None:
    environment = await opened(domain, process)
    reply = await environment.reply(turn("calculate", expression="9**9**9"))
    assert reply.call_errors == (True,)
    assert reply.messages[0]["content"] == "Error: the call took more than 2 seconds of processor time"
    assert (await environment.reply(turn("calculate", expression="2 + 2"))).messages[0]["content"] == "4.0"
    assert (await environment.verify()).success
    await environment.close()


async def test_a_process_that_is_killed_breaks_its_rollouts_and_the_next_begins_anew(
    domain: Domain, folder: Path
) -> None:
    process = airline_process(folder, "airline")
    environment = await opened(domain, process)
    for pid in [*children_of(server_of(process)), server_of(process)]:
        os.kill(pid, 9)
    with pytest.raises(RuntimeError, match="the benchmark's process ended during turn"):
        await environment.reply(turn("list_all_airports"))
    await environment.close()
    environment = await opened(domain, process)
    assert (await environment.verify()).success
    await environment.close()
    process.stop()


def server_of(process: BenchmarkProcess) -> int:
    return process._process.pid  # pyright: ignore


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_nothing_stays_behind(domain: Domain, process: BenchmarkProcess) -> None:
    async def play() -> None:
        environment = await opened(domain, process)
        await environment.reply(turn("list_all_airports"))
        await environment.close()

    def held() -> tuple[int, int]:
        """Files and threads; those of the loop's pool stay, and are bounded."""
        threads = [thread.name for thread in threading.enumerate()]
        return len([*Path("/proc/self/fd").iterdir()]), sum(not name.startswith("asyncio_") for name in threads)

    await asyncio.gather(*(play() for _ in range(8)))
    await asyncio.sleep(0.1)
    before = held()
    for _ in range(8):
        await asyncio.gather(*(play() for _ in range(8)))
    await asyncio.sleep(0.1)
    assert held() == before
    for _ in range(200):
        if children_of(server_of(process)):
            await asyncio.sleep(0.1)
    assert children_of(server_of(process)) == []


def test_a_stopped_process_leaves_no_file(folder: Path) -> None:
    process = airline_process(folder, "airline")

    async def start() -> None:
        await (await process.open_episode()).close()

    asyncio.run(start())
    home, pid = Path(process._socket).parent, server_of(process)
    assert home.is_dir()
    process.stop()
    assert not home.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_user_that_dies_in_mid_talk_breaks_its_rollout_and_the_others_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line: a model behind an endpoint plays six tasks, and the user of one dies."""
    monkeypatch.chdir(tmp_path)
    keys = {"name": "airline", "folder": str(folder)}
    environment = json.dumps(
        {**keys, "user": {"base_url": "USER", "model": "u", "retries": 0, "timeout": 600, "temperature": 0}}
    )
    Path("recipe.yaml").write_text(
        f'version: 1\nsteps: 1\npolicy: {{start: "lab:plain"}}\nenvironment: {environment}\nmethod: {{name: grpo}}\n'
        "siblings: {limits: {turns: 16, tokens: 4096, observation: 512, seconds: 600}}\n"
    )

    def user(number: int, request: dict[str, Any]) -> str:
        wish = request["messages"][0]["content"]
        if sum(message["role"] == "assistant" for message in request["messages"]) == 0:
            return says("hello")
        return "reset" if "james_lee_6136" in wish else says("thank you ###STOP###")

    def agent(number: int, request: dict[str, Any]) -> str:
        if request["messages"][-1]["role"] == "tool":
            return says("i cannot do that")
        return calls(("calculate", {"expression": 7}), ("no_such_tool", {})) if number % 2 else calls(("calculate", {}))

    with Server(user) as users, Server(agent) as agents:
        model = json.dumps({"base_url": agents.url, "model": "a", "timeout": 600})
        told = [f"environment.user.base_url={users.url}", f"evaluation.model={model}", "evaluation.tasks=6"]
        assert main(["evaluate", "recipe.yaml", *told, "--split", "test", "--trials", "0", "--json"]) == 0
    greedy = json.loads(capsys.readouterr().out)["modes"]["greedy"]
    assert greedy["broken"]["trials"] == 1
    assert next(iter(greedy["broken"]["causes"])).startswith("user: connection")
    assert greedy["overall"]["trials"] == 5
    assert greedy["calls_in_error"] == 1.0
    assert greedy["overall"]["floor"] == 0.5
