"""Six tasks of our own, five of them solved: verdicts, TGC and SGC are those of the package's own evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.appworld_plays import run_python, solution, wrong
from helpers.misbehaving import Server
from helpers.simulated_users import says
from sgcd.act.environments.appworld import appworld_tasks
from sgcd.act.settings import AppWorldSettings
from sgcd.cli import main

pytestmark = pytest.mark.slow
RECIPE = (
    "version: 1\nsteps: 1\npolicy: {{start: 'lab:plain'}}\nmethod: {{name: grpo}}\n"
    "environment: {{name: appworld, folder: '{folder}'}}\n"
)
UNSOLVED = "mini0002_3"


def instructions(folder: Path) -> dict[str, str]:
    paths = sorted((folder / "official/data/tasks").iterdir())
    return {path.name: json.loads((path / "specs.json").read_text())["instruction"] for path in paths}


def read_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def code_for(task: str, instruction: str) -> str:
    return (wrong if task == UNSOLVED else solution)(task, instruction)


def test_five_of_six(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = instructions(folder)
    task_of = {instruction: task for task, instruction in told.items()}

    def agent(number: int, request: dict[str, Any]) -> str:
        instruction = request["messages"][1]["content"]
        if len(request["messages"]) == 2:
            return says("First I look.")  # no code: the next message says so
        return says(f"I do it.\n```python\n{code_for(task_of[instruction], instruction)}\n```")

    Path("recipe.yaml").write_text(RECIPE.format(folder=folder) + "siblings: {limits: {seconds: 300}}\n")
    with Server(agent) as server:
        model = f"evaluation.model={{base_url: '{server.url}', model: m, concurrency: 2}}"
        keys = [model, "evaluation.split=test_normal", "evaluation.trials=0"]
        assert main(["evaluate", "recipe.yaml", *keys, "--run", "run", "--json"]) == 0
    greedy = json.loads(capsys.readouterr().out)["modes"]["greedy"]
    rows = {row["task"]: row for row in read_lines("run/evaluation.jsonl")}

    plays = [{"task": task, "code": code_for(task, instruction)} for task, instruction in told.items()]
    own = json.loads(run_python(folder, "play_package.py", folder / "official", text=json.dumps(plays)))
    assert own["aggregate"] == {"task_goal_completion": 83.3, "scenario_goal_completion": 50.0}
    assert round(100 * greedy["overall"]["value"], 1) == own["aggregate"]["task_goal_completion"]
    assert round(100 * greedy["scenarios"]["value"], 1) == own["aggregate"]["scenario_goal_completion"]
    assert {task: [row["tests"], row["tests_passed"]] for task, row in rows.items()} == own["passed"]
    assert {task for task, row in rows.items() if not row["success"]} == {UNSOLVED}
    assert {name: part["successes"] for name, part in greedy["categories"].items() if part["tasks"]} == {
        "difficulty_1": 3,
        "difficulty_2": 2,
    }
    assert {row["calls"] for row in rows.values()} == {1}
    assert greedy["overall"]["floor"] == 0

    assert main(["report", "run"]) in (0, 2)
    talks = read_lines("run/talks.jsonl")
    assert all("begins with ```python" in talk["messages"][3]["content"] for talk in talks)
    assert "only in encrypted form" in json.loads(Path("run/facts.json").read_text())["sharing"]


def test_splits_scenarios_and_floors(folder: Path) -> None:
    suite = appworld_tasks(AppWorldSettings(name="appworld", folder=str(folder)))
    assert {split: len(tasks) for split, tasks in suite.splits.items()} == {
        "train": 6,
        "dev": 3,
        "test_normal": 6,
        "test_challenge": 0,
    }
    assert {(task.scenario, task.category, task.floor) for task in suite.splits["test_normal"]} == {
        ("mini0001", "difficulty_1", 0.0),
        ("mini0002", "difficulty_2", 0.0),
    }
    hidden = folder / "worlds/data"
    assert not [*hidden.rglob("ground_truth")] and not [*hidden.rglob("evaluation.py")]
    assert [*(folder / "verdicts/data/").rglob("ground_truth")]
