"""A whole life through the command line: check, train, kill, resume, evaluate, compare."""

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

STEPS = "steps=4"


def answer(capture: pytest.CaptureFixture[str], *typed: str) -> dict[str, Any]:
    """What a verb says with --json: one object on standard output."""
    capture.readouterr()
    assert main([*typed, "--json"]) == 0
    [line] = capture.readouterr().out.splitlines()
    return json.loads(line)


def start_and_kill(run: Path, *typed: str) -> None:
    """Let a process of its own train until its first step is on disk, then kill it without a warning."""
    process = subprocess.Popen([sys.executable, "-m", "sgcd", "train", *typed, "--run", str(run)])
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_whole_life(at_desk: Path, capsys: pytest.CaptureFixture[str]):
    checked = answer(capsys, "check", "recipe.yaml", STEPS)
    assert checked["recipe"]["steps"] == 4
    assert checked["trials"] == 6 * (1 + 2)

    start_and_kill(at_desk / "killed", "recipe.yaml", STEPS)
    assert not Path("killed/policy").exists(), "killed before its end"
    resumed = answer(capsys, "train", "--run", "killed", "--resume")
    straight = answer(capsys, "train", "recipe.yaml", STEPS, "--run", "straight")
    assert resumed["step"] == straight["step"] == 4
    assert resumed["end"] == straight["end"]

    weights = [Path(run, "policy", "model.safetensors").read_bytes() for run in ("killed", "straight", ".")]
    assert weights[0] == weights[1], "as if it had never stopped"
    assert weights[0] != weights[2], "and it has learnt something"
    assert Path("killed/recipe.yaml").read_text() == Path("straight/recipe.yaml").read_text()
    assert sorted(path.name for path in Path("killed/checkpoints").iterdir()) == ["0003", "0004", "best"]
    assert len(Path("killed/metrics.jsonl").read_text().splitlines()) == 4

    longer = answer(capsys, "train", "--run", "killed", "--resume", "steps=5", "evaluation.every=1")
    fresh = answer(capsys, "train", "recipe.yaml", "--run", "fresh", "steps=5")
    assert longer["end"] == fresh["end"]
    assert Path("killed/policy/model.safetensors").read_bytes() == Path("fresh/policy/model.safetensors").read_bytes()

    measured = answer(capsys, "evaluate", "killed", "--trials", "3")
    assert (measured["step"], measured["modes"]["sampled"]["overall"]["trials"]) == (5, 18)
    bare = answer(capsys, "evaluate", "killed/policy", "--trials", "3", "--recipe", "recipe.yaml")
    assert bare["modes"] == measured["modes"], "the same policy, without its run"
    best = answer(capsys, "evaluate", "killed/checkpoints/best", "--recipe", "killed/recipe.yaml", "--tasks", "2")
    assert best["modes"]["greedy"]["overall"]["tasks"] == 2

    compared = answer(capsys, "compare", "killed", "fresh", "--against", "killed@0", "fresh@0")
    assert [side["step"] for side in compared["a"] + compared["b"]] == [5, 5, 0, 0]
    assert compared["modes"]["sampled"]["overall"]["tasks"] == 6
    again = answer(capsys, "train", "--run", "killed", "--resume")
    assert again["end"]["modes"]["greedy"] == fresh["end"]["modes"]["greedy"], "there was nothing left to do"
