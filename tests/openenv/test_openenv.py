"""The environment `openenv` against real OpenEnv servers on loopback, and what it says where there is none."""

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sgcd.act.environments.openenv import OpenenvEnvironment, openenv_tasks
from sgcd.act.settings import OpenenvSettings
from sgcd.cli import main
from sgcd.records import Call, ParsedTurn, Task

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-openenv/bin/python"
needs_server = pytest.mark.skipif(not PYTHON.exists(), reason="OpenEnv is not here (make openenv)")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The address of a server of each kind."""
    ports = {kind: free_port() for kind in ("tools", "action")}
    script = Path(__file__).with_name("server.py")
    running = [subprocess.Popen([PYTHON, script, kind, str(port)]) for kind, port in ports.items()]
    asyncio.run(wait_for([*ports.values()]))
    yield {kind: f"http://127.0.0.1:{port}" for kind, port in ports.items()}
    for process in running:
        process.terminate()
        process.wait()


async def wait_for(ports: list[int]) -> None:
    for port in ports:
        for _ in range(600):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.2)
            else:
                writer.close()
                break


def environment(url: str, **more: Any) -> OpenenvEnvironment:
    return OpenenvEnvironment(OpenenvSettings.model_validate({"name": "openenv", "url": url, "tasks": "none", **more}))


def turn(*calls: tuple[str, dict[str, Any]]) -> ParsedTurn:
    return ParsedTurn("", "", tuple(Call(name, arguments) for name, arguments in calls))


def row(**keys: Any) -> Task:
    return Task("t", "action", {"prompt": "take all", **keys})


async def play(url: str, task: Task, *turns: ParsedTurn, **more: Any) -> tuple[Any, list[Any], Any]:
    one = environment(url, **more)
    try:
        begun = await one.open(task, 0)
        return begun, [await one.reply(each) for each in turns], await one.verify()
    finally:
        await one.close()


@needs_server
@pytest.mark.slow
def test_mcp_tools_are_called_and_their_rewards_add_up(servers: dict[str, str]) -> None:
    wrong = turn(("find_user", {"name": "max"}), ("take", {"count": "many"}))
    right = turn(("find_user", {"name": "mia"}), ("take", {"count": 3}), ("take", {"count": 4}))
    begun, replies, verdict = asyncio.run(play(servers["tools"], row(stock=3, seed=7), wrong, right, system="be kind"))
    assert [message["content"] for message in begun.messages] == ["be kind", "take all"]
    assert begun.tool_names == {"find_user", "take"}
    assert begun.tools[1]["function"]["parameters"]["properties"]["count"]["type"] == "integer"
    assert [reply.call_errors for reply in replies] == [(True, True), (False, False, True)]
    assert "no such customer" in replies[0].messages[0]["content"]
    assert json.loads(replies[1].messages[0]["content"]) == {"name": "mia", "stock": 3}
    assert [message["content"] for message in replies[1].messages[1:]] == ["took 3", "error : the task is over"]
    assert [reply.done for reply in replies] == [False, True]
    assert (verdict.reward, verdict.success) == (1.0, True)


@needs_server
@pytest.mark.slow
def test_a_server_with_one_type_of_action_has_the_tool_act(servers: dict[str, str]) -> None:
    turns = (turn(("act", {"word": "no"})), turn(("act", {"letter": "x"})), turn(("act", {"word": "yes"})))
    begun, replies, verdict = asyncio.run(play(servers["action"], row(word="yes"), *turns))
    assert begun.messages[0]["content"] == "take all\n\n3 letters"
    assert begun.tools[0]["function"]["parameters"]["required"] == ["word"]
    assert [reply.messages[0]["content"] for reply in (replies[0], replies[2])] == ["wrong", "right"]
    assert replies[1].call_errors == (True,)
    assert replies[2].done
    assert (verdict.reward, verdict.success) == (1.0, True)


@needs_server
@pytest.mark.slow
def test_sessions_are_side_by_side_apart_and_given_back(servers: dict[str, str]) -> None:
    async def many() -> list[float]:
        plays = [play(servers["tools"], row(stock=index), turn(("take", {"count": 2}))) for index in range(4)]
        return [verdict.reward for _, _, verdict in await asyncio.gather(*plays)]

    async def one_too_many() -> None:
        open_ones = [environment(servers["tools"]) for _ in range(5)]
        try:
            for one in open_ones:
                await one.open(row(), 0)
        finally:
            for one in open_ones:
                await one.close()

    assert asyncio.run(many()) == [0, 0, 1, 0]
    with pytest.raises(
        RuntimeError, match=r"start the server with more \(max_concurrent_envs\), or lower sampler.slots"
    ):
        asyncio.run(one_too_many())
    assert asyncio.run(many()) == [0, 0, 1, 0]
    with pytest.raises(RuntimeError, match="stock must not be negative"):
        asyncio.run(play(servers["tools"], row(stock=-1)))


def write_recipe(folder: Path, url: str) -> Path:
    rows = [{"id": f"t{index}", "prompt": "please say yes", "word": ("yes", "no")[index % 2]} for index in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    recipe = (folder / "recipe.yaml").read_text().splitlines()
    ours = f"environment: {{name: openenv, url: '{url}', tasks: rows.jsonl, dev: rows.jsonl}}"
    (folder / "recipe.yaml").write_text("\n".join(ours if line.startswith("environment") else line for line in recipe))
    return folder / "recipe.yaml"


@needs_server
@pytest.mark.slow
def test_a_policy_is_trained_on_a_server(servers: dict[str, str], at_desk: Path) -> None:
    recipe = write_recipe(at_desk, servers["action"])
    keys = ["steps=1", "siblings.group_size=2", "siblings.groups=1", "siblings.rounds=1", "sampler.slots=4"]
    status = main(["train", str(recipe), "--run", "run", *keys, "evaluation={every: 1, trials: 1}"])
    assert status in (0, 1)  # a group may not be mixed
    metrics = json.loads((at_desk / "run/metrics.jsonl").read_text().splitlines()[0])
    assert (metrics["rollouts"], metrics["broken"]) == (2, 0)


def test_no_server_breaks_each_rollout_and_says_where_it_was_looked_for(
    at_desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(at_desk, f"http://127.0.0.1:{free_port()}")
    assert main(["train", str(recipe), "--run", "run", "steps=1", "siblings.rounds=1"]) == 1
    assert "environment.url: no OpenEnv server answers at ws://127.0.0.1:" in capsys.readouterr().err


def test_a_row_or_an_address_that_fits_nothing_is_refused(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(at_desk, "127.0.0.1:8000")
    assert main(["check", str(recipe)]) == 2
    assert "environment.url" in capsys.readouterr().err
    (at_desk / "rows.jsonl").write_text('{"id": "a", "prompt": 3}\n')
    settings = OpenenvSettings.model_validate({"name": "openenv", "url": "http://x", "tasks": "rows.jsonl"})
    with pytest.raises(Exception, match=r"rows.jsonl, line 1: prompt must be"):
        openenv_tasks(settings)
