"""The smallest run of each recipe: three steps of a random policy that calls tools and answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.benchmarks import read_lines
from helpers.call_policies import END, call_text, save_call_policy
from sgcd.act.environments.airline.description import Domain
from sgcd.cli import main

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes/airline"


READS = call_text("list_all_airports")
WRITES = call_text("send_certificate", user_id="mia_li_3668", amount=100)
LIMITS = "{turns: 3, tokens: 1000, observation: 512, seconds: 600}"
"""Time enough for a busy machine, on which the benchmark takes more than a minute to start."""
SHARES = {END: 0.45, READS: 0.2, WRITES: 0.1, "The": 0.25}
"""Whole calls are tokens of this policy. One that writes fails a task in which nothing was to be written."""


def save_tiny_policy(folder: Path, domain: Domain) -> None:
    save_call_policy(folder, SHARES, domain.system + json.dumps(domain.tools))


@pytest.mark.parametrize("arm", ["grpo_kl", "sdpo", "sgcd"])
def test_three_steps(arm: str, folder: Path, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_policy(Path("policy"), domain)
    keys = [
        "steps=3",
        "policy={start: policy}",
        f"environment={{name: airline, folder: '{folder}'}}",
        f"siblings={{groups: 1, group_size: 4, rounds: 4, limits: {LIMITS}}}",
        "sampler={slots: 8, mode: lockstep}",
        "reference={writer: {name: built-in}}",
        "optimizer.lr=0.01",
        "evaluation={split: test, every: 3, tasks: 2, trials: 1}",
    ]
    assert main(["train", str(RECIPES / f"{arm}.yaml"), *keys, "--run", "run"]) == 0
    steps = read_lines("run/metrics.jsonl")
    trials = read_lines("run/evaluation.jsonl")
    assert [step["broken"] for step in steps] == [0, 0, 0]
    assert sum(step["mixed"] for step in steps) >= 2
    assert {trial["broken"] for trial in trials} == {""}
    assert {(trial["task"], trial["floor"]) for trial in trials} == {("airline-2", 1.0), ("airline-6", 1.0)}
    assert any(trial["calls"] for trial in trials)
    if arm == "sgcd":
        rows = [json.loads(line) for path in Path("run/references").iterdir() for line in path.open()]
        assert rows and all(row.get("text") or row["cause"] for row in rows)
        # a success writes nothing; with outcomes exchanged, the first step's reference says what failures call
        assert any("send_certificate" in row.get("swapped", "") for row in rows)


def demonstration(domain: Domain, task_id: str) -> dict[str, Any]:
    function = {"name": "list_all_airports", "arguments": "{}"}
    return {
        "messages": [
            {"role": "system", "content": domain.system},
            {"role": "assistant", "content": domain.greeting},
            {"role": "user", "content": domain.tasks[task_id].first_words},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "1", "content": "[]"},
            {"role": "assistant", "content": "The"},
        ],
        "tools": [*domain.tools],
    }


def test_three_steps_of_the_supervised_start(
    folder: Path, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_policy(Path("policy"), domain)
    lines = [json.dumps(demonstration(domain, task_id)) for task_id in [*domain.tasks][:6]]
    Path("talks.jsonl").write_text("\n".join(lines) + "\n")
    keys = [
        "policy={start: policy}",
        f"environment={{name: airline, folder: '{folder}'}}",
        f"siblings={{limits: {LIMITS}}}",
        "sampler={slots: 8, mode: lockstep}",
        "supervised={data: [talks.jsonl], epochs: 1, batch_size: 2}",
        "evaluation={split: test, every: 3, tasks: 2, trials: 1}",
    ]
    assert main(["sft", str(RECIPES / "sft.yaml"), *keys, "--run", "run"]) == 0
    trials = read_lines("run/evaluation.jsonl")
    assert {trial["step"] for trial in trials} == {0, 3}
    assert {trial["broken"] for trial in trials} == {""}
    assert Path("run/policy/model.safetensors").is_file()
