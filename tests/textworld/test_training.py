"""The smallest run of each recipe: a supervised start, and three steps of a policy that types whole walkthroughs."""

import json
from pathlib import Path

import pytest

from helpers.benchmarks import borrow_environment, evaluate_run, read_lines, train_three_steps_with_a_kill
from helpers.call_policies import END, call_text, save_call_policy
from sgcd.act.environments.textworld import GAMES_FILE, GAMES_FORMAT, PLAY_TOOL, SYSTEM
from sgcd.act.environments.textworld.setup import WALKTHROUGHS_FILE
from sgcd.cli import main

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes/textworld"


@pytest.fixture
def few_games(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with TextWorld's environment and a few games; the tests run beside it, with a policy for them."""
    monkeypatch.chdir(tmp_path)
    few = borrow_environment(folder, tmp_path / "few", "games")
    games = {"train": ["train-0"], "dev": ["dev-0"], "test": ["test-0", "test-1"]}
    (few / GAMES_FILE).write_text(json.dumps({"format": GAMES_FORMAT, "games": games}))
    lines = (folder / WALKTHROUGHS_FILE).read_text(encoding="utf-8").splitlines()[:6]
    Path("walkthroughs.jsonl").write_text("\n".join(lines) + "\n")
    turns = [message for message in json.loads(lines[0])["messages"] if message["role"] == "assistant"]
    commands = [json.loads(turn["tool_calls"][0]["function"]["arguments"])["command"] for turn in turns]
    wins = "".join(call_text("play", command=command) for command in commands)
    shares = {END: 0.4, wins: 0.3, call_text("play", command="look"): 0.25, "The": 0.05}
    save_call_policy(Path("policy"), shares, json.dumps(PLAY_TOOL) + SYSTEM + "\n".join(lines), vocab_size=600)
    return few


def keys(folder: Path) -> list[str]:
    return [
        "policy={start: policy}",
        f"environment={{name: textworld, folder: '{folder}', admissible: true}}",
        "sampler={slots: 8, mode: lockstep, temperature: 1.0}",
        "evaluation={split: test, every: 3, tasks: 2, trials: 1}",
    ]


@pytest.mark.parametrize("arm", ["grpo", "sgcd"])
def test_three_steps_killed_and_resumed(arm: str, few_games: Path, capsys: pytest.CaptureFixture[str]) -> None:
    siblings = "siblings={groups: 1, group_size: 4, rounds: 4, limits: {turns: 4, tokens: 900, observation: 2000}}"
    run_keys = [*keys(few_games), siblings, "optimizer.lr=0.01"]
    train_three_steps_with_a_kill(RECIPES / f"{arm}.yaml", run_keys, num_mixed=2)
    found = evaluate_run(capsys)
    assert (found["broken"]["trials"], found["overall"]["trials"]) == (0, 4)


def test_the_supervised_start_reads_the_walkthroughs(few_games: Path) -> None:
    limits = "siblings={limits: {turns: 3, tokens: 1000, observation: 2000}}"
    data = "supervised={data: [walkthroughs.jsonl], epochs: 1, batch_size: 2}"
    assert main(["sft", str(RECIPES / "sft.yaml"), *keys(few_games), limits, data, "--run", "run"]) == 0
    trials = read_lines("run/evaluation.jsonl")
    assert {trial["broken"] for trial in trials} == {""}
    assert Path("run/policy/model.safetensors").is_file()
