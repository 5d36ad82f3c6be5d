"""The learning table says what its figures say."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.delitem(sys.modules, "learning", raising=False)
    return import_module("learning")


def trial(seed: int, step: int, mode: str, task: int, number: int, success: bool) -> dict[str, Any]:
    return {
        "seed": seed,
        "step": step,
        "split": "test",
        "mode": mode,
        "temperature": float(mode == "sampled"),
        "task": f"test-{task:04}",
        "category": "action" if task < 8 else "information",
        "trial": number,
        "success": success,
        "reward": float(success),
        "broken": "",
        "calls": 4,
        "failed_calls": 1 if step == 0 else 0,
        "malformed": 0,
        "looping": False,
        "turns": 5,
        "tokens": 60,
        "ending": "answered",
    }


def played(path: Path, seed: int, more: int = 0) -> Path:
    """A run of two steps: it solves four of twelve tasks at the start, and eight plus its seed and `more` then."""
    folder = RunFolder.create(path, "environment: {name: lab, chatty: 'no'}\n", {"versions": {"sgcd": "0.1.0"}})
    for step, solved in ((0, 4), (1, 6), (2, 8 + seed + more)):
        folder.append_evaluation(trial(seed, step, "greedy", task, 0, task < solved) for task in range(12))
        folder.append_evaluation(
            trial(seed, step, "sampled", task, number, task < solved) for task in range(12) for number in (0, 1)
        )
    for step in (1, 2):
        audit = {"successes": 0, "without_tool": 0, "tools_per_success": None}
        row = {
            "step": step,
            "skipped": "no mixed group" if (step, seed) == (1, 1) else "",
            "seconds": {"total": 30.0},
            "rollouts": 64,
            "broken": 0,
            "causes": {},
            "success": 0.5,
            "calls_in_error": 0.1,
            "entropy": 0.5,
            "audit": {"information": audit, "action": audit},
        }
        folder.append_metrics(StepMetrics.from_json(row))
    return path


def test_figures_of_runs_become_lines_of_the_table(learning: ModuleType, tmp_path: Path) -> None:
    told = learning.method_summary([played(tmp_path / str(seed), seed) for seed in (2, 0, 1)])
    assert told == learning.method_summary([tmp_path / str(seed) for seed in (0, 1, 2)])
    assert [seed["seed"] for seed in told["seeds"]] == [0, 1, 2]
    both = {"methods": {"grpo": told}, "sgcd - grpo": None}
    lines = learning.table(json.loads(json.dumps({"worlds": {"plain": both}}))).splitlines()
    first = [cell.strip() for cell in lines[2].split("|")]
    assert first[1:3] == ["plain, grpo", "0"]
    assert first[3].startswith("0.333 [")
    assert first[4].startswith("0.667 [")
    assert first[5].startswith("+0.333 [+")
    assert first[6] == f"{(6 / 12 + 8 / 12) / 2:.3f}"
    assert first[8] == "25.0 % to 0.0 %"
    assert [cell.strip() for cell in lines[5].split("|")][1:5] == ["plain, grpo", "all", "0.333", "0.750"]
    assert "| plain, grpo | transfer | 0 | - | - | - | - |" in lines
    assert any(
        line.startswith("- plain, grpo: 3 of 3 intervals") and "2 steps, 1.0 minutes a run" in line for line in lines
    )
    assert "- plain, grpo, seed 1: 1 of 2 steps moved nothing: no mixed group (1)." in lines
    assert "t over matched seeds and tasks" in lines[-1]


def test_one_method_is_held_against_the_other_seed_by_seed(learning: ModuleType, tmp_path: Path) -> None:
    paths = {
        ("plain", "grpo"): [played(tmp_path / f"a{seed}", seed) for seed in (0, 1)],
        ("plain", "sgcd"): [played(tmp_path / f"b{seed}", seed, more=1) for seed in (0, 1)],
    }
    told = {method: learning.method_summary(paths["plain", method]) for method in ("grpo", "sgcd")}
    result = {"worlds": {"plain": {"methods": told, "sgcd - grpo": learning.compare_methods(paths, "plain")}}}
    lines = learning.table(json.loads(json.dumps(result))).splitlines()
    start = lines.index("| SGCD less GRPO | seed | sampled | greedy |")
    cells = [[cell.strip() for cell in line.split("|")] for line in lines[start + 2 : start + 5]]
    assert [row[1:3] for row in cells] == [["plain", "0"], ["plain", "1"], ["plain", "all"]]
    assert all(row[3].startswith("+0.083") and row[4].startswith("+0.083") for row in cells)


def test_a_table_takes_the_place_of_the_one_before(learning: ModuleType) -> None:
    once = learning.insert_learning_table("# The log\n\nwords\n", "| a |")
    assert learning.insert_learning_table(once, "| a |") == once
    assert "| b |" in learning.insert_learning_table(once + "\n## More\n", "| b |")
    assert "| a |" not in learning.insert_learning_table(once, "| b |")
    assert learning.insert_learning_table(once + "\n## More\n", "| b |").endswith("## More\n")
