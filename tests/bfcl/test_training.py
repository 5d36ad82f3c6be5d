"""The smallest run of each recipe: three steps of a random policy that calls functions, one killed and resumed."""

import json
from pathlib import Path

import pytest

from helpers.benchmarks import borrow_environment, evaluate_run, read_lines, train_three_steps_with_a_kill
from helpers.call_policies import END, call_text, save_call_policy
from sgcd.act.environments.bfcl.description import BFCL_DESCRIPTION
from sgcd.cli import main
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import recipe_differences

RECIPES = Path(__file__).parents[2] / "recipes/bfcl"
PLAYED = ("multi_turn_base_50", "multi_turn_long_context_50", "multi_turn_miss_param_139", "multi_turn_base_139")
"""The shortest tasks: two for training, whose only turn takes two calls, and two of the test."""
LOCKS = call_text("lockDoors", unlock=True, door=["driver", "passenger", "rear_left", "rear_right"])
LIGHTS = call_text("setHeadlights", mode="on")
SHARES = {LOCKS + LIGHTS: 0.5, END: 0.45, "The": 0.05}


def test_the_recipes_differ_in_the_method_alone() -> None:
    changes = recipe_differences(load_recipe(RECIPES / "grpo.yaml"), load_recipe(RECIPES / "sgcd.yaml"))
    assert {change.key.partition(".")[0] for change in changes} == {"method"}


@pytest.fixture
def few_tasks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the benchmark's environment and a few of its tasks; the tests run beside it."""
    monkeypatch.chdir(tmp_path)
    few = borrow_environment(folder, tmp_path / "few")
    description = json.loads((folder / BFCL_DESCRIPTION).read_text(encoding="utf-8"))
    description["tasks"] = [task for task in description["tasks"] if task["id"] in PLAYED]
    (few / BFCL_DESCRIPTION).write_text(json.dumps(description))
    save_call_policy(Path("policy"), SHARES, json.dumps(description["functions"]))
    return few


def keys(folder: Path) -> list[str]:
    return [
        "policy={start: policy}",
        f"environment={{name: bfcl, folder: '{folder}'}}",
        "siblings={groups: 1, group_size: 4, rounds: 4, limits: {turns: 6, tokens: 600, observation: 4096}}",
        "sampler={slots: 8, mode: lockstep, temperature: 1.0}",
        "optimizer.lr=0.01",
        "evaluation={split: test, every: 3, tasks: 2, trials: 1}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["grpo", "sgcd"])
def test_three_steps_killed_and_resumed(arm: str, few_tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_three_steps_with_a_kill(RECIPES / f"{arm}.yaml", keys(few_tasks), num_mixed=3)
    found = evaluate_run(capsys)
    assert found["broken"]["trials"] == 0
    assert {"base", "miss_param"} <= found["categories"].keys()


@pytest.mark.slow
def test_credit_by_turn_reads_the_parts(few_tasks: Path) -> None:
    arguments = [*keys(few_tasks), "steps=1", "method={name: by_turn}"]
    assert main(["train", str(RECIPES / "grpo.yaml"), *arguments, "--run", "run"]) == 0
    [step] = read_lines("run/metrics.jsonl")
    assert (step["broken"], step["mixed"]) == (0, 1)
