"""The smallest run of each recipe: three steps of a random policy that writes whole blocks of code, one killed."""

import json
from pathlib import Path

import pytest

from helpers.appworld_plays import LONG
from helpers.benchmarks import borrow_environment, read_lines, train_three_steps_with_a_kill
from helpers.call_policies import END, save_call_policy
from sgcd.act.environments.appworld.description import APPWORLD_DESCRIPTION
from sgcd.cli import main

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes/appworld"
RIGHT, WRONG = (f"```python\napis.supervisor.complete_task(answer={answer!r})\n```" for answer in ("4711", "no"))
SHARES = {RIGHT: 0.3, WRONG: 0.3, END: 0.35, "The": 0.05}


def test_three_steps(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One train task, of which half of the rollouts know the answer."""
    monkeypatch.chdir(tmp_path)
    few = borrow_environment(folder, tmp_path / "few", "worlds", "verdicts")
    description = json.loads((folder / APPWORLD_DESCRIPTION).read_text())
    description["splits"]["train"] = [task for task in description["splits"]["train"] if task["id"] == "mini0002_1"]
    (few / APPWORLD_DESCRIPTION).write_text(json.dumps(description))
    save_call_policy(Path("policy"), SHARES, "The task of a person is done by code. " * 20)
    keys = [
        "policy={start: policy}",
        f"environment={{name: appworld, folder: '{few}'}}",
        f"siblings={{groups: 1, group_size: 4, rounds: 4, limits: {{turns: 3, tokens: 1000, seconds: {LONG}}}}}",
        "sampler={slots: 4, mode: lockstep}",
        "reference={writer: {name: built-in}}",
        "optimizer.lr=0.01",
        "evaluation={split: dev, every: 3, tasks: 3, greedy: true, trials: 0}",
    ]
    train_three_steps_with_a_kill(RECIPES / "sgcd.yaml", keys, num_mixed=2)
    trials = read_lines("run/evaluation.jsonl")
    assert {trial["step"] for trial in trials} == {0, 3}
    assert {(trial["broken"], trial["scenario"], trial["tests"]) for trial in trials} == {("", "mini0002", 2)}
    assert main(["report", "run"]) == 0
    assert "only in encrypted form" in Path("run/report.html").read_text()
