"""Plays of six tasks of our own in AppWorld: right and wrong code, and the servers that run it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from sgcd.act.environments.appworld import AppWorldEnvironment
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.records import ParsedTurn, Task

LONG = 600
"""Seconds for what waits for the package to start, on a machine with other work."""
_SCRIPTS = Path(__file__).parents[1] / "appworld"


def run_python(folder: Path, script: str, *arguments: str | Path, text: str = "") -> str:
    """Run a script of tests/appworld in the benchmark's own Python; returns its last line."""
    command = [folder / "bin/python", "-P", _SCRIPTS / script, *arguments]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=folder, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1] if done.stdout else ""


@dataclass
class Servers:
    """The two servers of the six tasks."""

    worlds: BenchmarkProcess
    verdicts: BenchmarkProcess

    async def open(self, task: str) -> AppWorldEnvironment:
        environment = AppWorldEnvironment(self.worlds, self.verdicts)
        await environment.open(Task(task, "", {"benchmark_id": task}), seed=0)
        return environment


def block(code: str) -> ParsedTurn:
    return ParsedTurn("", f"```python\n{code}\n```", ())


def solution(task: str, instruction: str) -> str:
    """Code that solves a task as it is meant, from what its instruction says and the apps show."""
    quoted = instruction.split("'")[1::2]
    login = (
        "password = apis.supervisor.show_account_passwords()[0]['password']\n"
        "token = apis.simple_note.login(username='mia@example.com', password=password)['access_token']\n"
    )
    if task.startswith("mini0001"):
        note = f"title={quoted[0]!r}, content={quoted[1]!r}"
        return f"{login}apis.simple_note.create_note(access_token=token, {note})\napis.supervisor.complete_task()"
    return (
        f"{login}[note] = apis.simple_note.search_notes(access_token=token, query={quoted[0]!r})[:1]\n"
        "answer = apis.simple_note.show_note(access_token=token, note_id=note['note_id'])['content']\n"
        "apis.supervisor.complete_task(answer=answer)"
    )


def wrong(task: str, instruction: str) -> str:
    """Code that claims the task done and does too little."""
    return "apis.supervisor.complete_task(answer='7')"
