"""What the tests of benchmarks share: what commands refuse, a borrowed environment, and a run that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sgcd.cli import main

Capture = pytest.CaptureFixture[str]
EVALUATE = ("evaluate", "recipe.yaml", "evaluation.model={base_url: http://127.0.0.1:9/v1, model: x}", "--split=test")
PATIENCE = 600
"""Seconds for a run to get to its first checkpoint, on a machine with other work."""


def find_benchmark(name: str, description: str, title: str, how: str = "") -> Path:
    """The environment that `make test-NAME` made; skips the test where there is none."""
    folder = Path(__file__).parents[2] / f".venv-{name}"
    if not (folder / description).is_file():
        pytest.skip(f"{title} is not installed: make test-{name}{how}")
    return folder


def write_recipe(name: str) -> None:
    """The smallest recipe of an environment, as recipe.yaml."""
    policy, method = '{start: "lab:plain"}', "{name: grpo}"
    text = f"version: 1\nsteps: 1\npolicy: {policy}\nenvironment: {{name: {name}}}\nmethod: {method}\n"
    Path("recipe.yaml").write_text(text)


def refused(capsys: Capture, *arguments: str) -> str:
    """The one line that a refused command prints."""
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def check_that_other_folders_are_refused(capsys: Capture, *setup: str) -> None:
    """`sgcd setup` leaves a folder alone that holds something else."""
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear mia")
    assert "mine: is not empty and no environment of Python" in refused(capsys, "setup", *setup, "--folder", "mine")


def borrow_environment(folder: Path, target: Path, *parts: str) -> Path:
    """A folder of its own with the Python of a benchmark, and more parts of its folder, without a copy."""
    target.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg", *parts):
        (target / name).symlink_to(folder / name)
    return target


def read_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def train_three_steps_with_a_kill(recipe: Path, keys: list[str], num_mixed: int) -> None:
    """Train to `run`, kill it after its first checkpoint, and resume it: nothing is broken, and the policy moved."""
    command = [sys.executable, "-m", "sgcd", "train", str(recipe), *keys, "steps=3", "checkpoint={every: 1}"]
    process = subprocess.Popen([*command, "--run", "run"])
    deadline = time.monotonic() + PATIENCE
    while not Path("run/checkpoints/0001").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert main(["train", "--run", "run", "--resume"]) == 0
    steps = read_lines("run/metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert [step["broken"] for step in steps] == [0, 0, 0]
    assert sum(step["mixed"] for step in steps) >= num_mixed
    before, after = (Path(folder, "model.safetensors").read_bytes() for folder in ("policy", "run/policy"))
    assert before != after


def evaluate_run(capsys: Capture) -> dict[str, Any]:
    """What `sgcd evaluate` says of two sampled trials for each held-out task of `run`."""
    capsys.readouterr()
    assert main(["evaluate", "run", "--split", "test", "--trials", "2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["modes"]["sampled"]
