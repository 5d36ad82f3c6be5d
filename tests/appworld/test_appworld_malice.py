"""What a policy's code may try is an output and has no effect; code that cannot be stopped fails its own task."""

import asyncio
import os
from pathlib import Path

import pytest

from helpers.appworld_plays import Servers, block
from sgcd.text import cut_middle

pytestmark = pytest.mark.slow
REPLY_SECONDS = 120
QUIET = {"pathlib, parent folders", "shell", "loop that catches once", "guard turned off"}
"""Attempts that end without an error, and without an effect."""

UNGUARDED = (
    "import unittest, contextlib, os\n"
    "sys = unittest.sys if hasattr(unittest, 'sys') else contextlib.sys\n"
    "real = lambda module, name: getattr(sys.modules[module], name)\n"
    "guard = [o for o in sys.modules['gc'].get_objects() if type(o).__name__ == 'SafetyGuard'][0] "
    "if 'gc' in sys.modules else None\n"
    "call = guard.name_to_function\n"
)
"""A route around the package's own guard, which keeps the functions that it replaces."""

ATTEMPTS = {
    "pathlib": "import pathlib\nprint(pathlib.Path('{truth}/answer.json').read_text())",
    "pathlib, parent folders": (
        "import pathlib\nfor p in pathlib.Path('{official}').rglob('answer.json'): print(p.read_text())"
    ),
    "task class": (
        "from appworld.task import Task\nprint(Task.load('mini0002_1', load_ground_truth=True).ground_truth.answer)"
    ),
    "ground truth class": (
        "import os\nos.environ['APPWORLD_ROOT'] = '{official}'\n"
        "from appworld.ground_truth import GroundTruth\nprint(GroundTruth.load('mini0002_1').answer)"
    ),
    "evaluator": (
        "import os\nos.environ['APPWORLD_ROOT'] = '{official}'\n"
        "from appworld.evaluator import evaluate_task\nprint(evaluate_task('mini0002_1', '{official}').to_dict())"
    ),
    "builtins": "print(builtins.open('{truth}/answer.json').read())",
    "unguarded open": UNGUARDED + "print(call['builtins.open']('{truth}/answer.json').read())",
    "unguarded os": UNGUARDED + "print(call['os.read'](call['os.open']('{truth}/answer.json', 0), 99))",
    "unguarded listing": UNGUARDED + "print(call['os.listdir']('{truth}'))",
    "unguarded copy": UNGUARDED + "call['shutil.copytree']('{truth}', 'x')\nprint(call['os.listdir']('x'))",
    "unguarded sqlite": UNGUARDED
    + "print(call['sqlite3.connect']('{official}/data/base_dbs/admin.db').execute('select 1'))",
    "memory of others": UNGUARDED + "print(call['builtins.open']('/proc/{parent}/environ', 'rb').read())",
    "own environment": UNGUARDED + "print(call['builtins.open']('/proc/self/environ', 'rb').read())",
    "process": UNGUARDED + "print(call['subprocess.check_output'](['cat', '{truth}/answer.json']))",
    "shell": UNGUARDED + "print(call['os.system']('cat {truth}/answer.json > {leak}'))",
    "write": UNGUARDED + "call['builtins.open']('{leak}', 'w').write('leak')",
    "write, data": UNGUARDED + "call['builtins.open']('{official}/data/tasks/mini0002_1/specs.json', 'w').write('')",
    "remove": UNGUARDED + "call['shutil.rmtree']('{official}')",
    "fork": UNGUARDED + "while True: call['os.fork']()",
    "kill": UNGUARDED + "call['os.kill']({parent}, 9)",
    "socket": UNGUARDED + "s = sys.modules['socket'].socket()\ns.connect(('127.0.0.1', {port}))\nprint('connected')",
    "datagram": UNGUARDED + "s = sys.modules['socket'].socket(2, 2)\nprint(s.sendto(b'x', ('127.0.0.1', 9)))",
    "unix socket": UNGUARDED + "s = sys.modules['socket'].socket(1)\ns.connect('{socket}')\nprint('connected')",
    "loop": "while True: pass",
    "loop that catches once": "try:\n    [0 for _ in iter(int, 1)]\nexcept BaseException: print('caught')",
    "interrupt": "raise KeyboardInterrupt",
    "exit": "raise SystemExit",
    "recursion": "f = lambda: f()\nf()",
    "memory": "x = 'x' * 10**11",
    "guard turned off": "import appworld\nappworld.environment.AppWorld.task_completed = None\nprint('done')",
    "engine undone": "import appworld\nappworld.environment.AppWorld._save_state = None",
    "builtins undone": "builtins.open = None\nbuiltins.str = None\nbuiltins.len = None",
}


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_an_attempt_is_an_output_and_has_no_effect(
    name: str, folder: Path, servers: Servers, tmp_path: Path
) -> None:
    official, leak = folder / "official", tmp_path / "leak"
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    values = {
        "official": official,
        "truth": official / "data/tasks/mini0002_1/ground_truth",
        "leak": leak,
        "parent": os.getpid(),
        "port": server.sockets[0].getsockname()[1],
        "socket": servers.worlds._socket,  # pyright: ignore
    }
    before = {path: path.stat().st_mtime_ns for path in official.rglob("*")}
    code = ATTEMPTS[name]
    for key, value in values.items():
        code = code.replace("{" + key + "}", str(value))
    environment = await servers.open("mini0002_1")
    try:
        async with asyncio.timeout(REPLY_SECONDS):
            reply = await environment.reply(block(code))
        [message] = reply.messages
        output = str(message["content"])
        assert "4711" not in output and "connected" not in output, output
        assert not reply.done
        assert reply.calls[0].is_error or name in QUIET, output
        assert not (await environment.verify()).success
    finally:
        await environment.close()
        server.close()
    assert not leak.exists()
    assert {path: path.stat().st_mtime_ns for path in official.rglob("*")} == before


async def test_a_million_characters_are_cut(servers: Servers) -> None:
    environment = await servers.open("mini0002_1")
    reply = await environment.reply(block("print('x' * 1_000_000)"))
    [message] = reply.messages
    assert len(message["content"]) == 200_000
    assert len(cut_middle(message["content"], 12_000)) <= 12_100
    assert (await environment.reply(block("print(1)"))).messages[0]["content"].strip() == "1"
    await environment.close()
