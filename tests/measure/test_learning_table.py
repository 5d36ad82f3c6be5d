"""The learning table says what its figures say, and the log holds the table of the figures that lie beside it."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sgcd.run import RunFolder

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


def played(path: Path, seed: int) -> Path:
    """A run of two steps: it solves four of twelve tasks at the start, and eight plus its seed at the end."""
    folder = RunFolder.create(path, "environment: {name: lab, chatty: 'no'}\n", {"versions": {"sgcd": "0.1.0"}})
    for step, solved in ((0, 4), (1, 6), (2, 8 + seed)):
        folder.append_evaluation(trial(seed, step, "greedy", task, 0, task < solved) for task in range(12))
        folder.append_evaluation(
            trial(seed, step, "sampled", task, number, task < solved) for task in range(12) for number in (0, 1)
        )
    for step in (1, 2):
        audit = {"successes": 0, "without_tool": 0, "tools_per_success": None}
        folder.append_metrics(
            {
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
        )
    return path


def test_figures_of_runs_become_lines_of_the_table(learning: ModuleType, tmp_path: Path) -> None:
    told = learning.of_world([played(tmp_path / str(seed), seed) for seed in (2, 0, 1)])
    assert told == learning.of_world([tmp_path / str(seed) for seed in (0, 1, 2)])
    assert [seed["seed"] for seed in told["seeds"]] == [0, 1, 2]
    lines = learning.table(json.loads(json.dumps({"worlds": {"plain": told}}))).splitlines()
    first = [cell.strip() for cell in lines[2].split("|")]
    assert first[1:3] == ["plain", "0"]
    assert first[3].startswith("0.333 [")
    assert first[4].startswith("0.667 [")
    assert first[5].startswith("+0.333 [+")
    assert first[6] == f"{(6 / 12 + 8 / 12) / 2:.3f}"
    assert first[8] == "25.0 % to 0.0 %"
    assert [cell.strip() for cell in lines[5].split("|")][1:5] == ["plain", "all", "0.333", "0.750"]
    assert "| plain | transfer | 0 | - | - | - | - |" in lines
    assert any(line.startswith("- plain: 3 of 3 intervals") and "2 steps, 1.0 minutes a run" in line for line in lines)
    assert "- plain, seed 1: 1 of 2 steps moved nothing: no mixed group (1)." in lines
    assert "- plain, all seeds: bootstrap over matched seeds, then tasks (percentile)." in lines


def test_a_table_takes_the_place_of_the_one_before(learning: ModuleType) -> None:
    once = learning.placed("# The log\n\nwords\n", "| a |")
    assert learning.placed(once, "| a |") == once
    assert "| b |" in learning.placed(once + "\n## More\n", "| b |")
    assert "| a |" not in learning.placed(once, "| b |")
    assert learning.placed(once + "\n## More\n", "| b |").endswith("## More\n")


def test_the_log_holds_the_table_of_its_figures(learning: ModuleType) -> None:
    log = learning.LOG.read_text(encoding="utf-8")
    assert learning.RESULTS.exists() == (learning.BEGIN in log), "the figures and the table come and go together"
    if learning.RESULTS.exists():
        result = json.loads(learning.RESULTS.read_text(encoding="utf-8"))
        assert log == learning.placed(log, learning.table(result)), "the table was changed by hand: run make learning"
