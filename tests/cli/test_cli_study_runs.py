"""sgcd study with real runs: killed twice it ends with the same bytes, a crash is shown, and every run is ordinary."""

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
from sgcd.measure.compare import compare_evaluations, load_evaluation

ROOT = Path(__file__).parents[2]
RESULTS = ("result.json", "result.md", "curves.svg", "curves.png", "differences.svg", "differences.png", "study.json")
KEYS = {
    "steps": 2, "siblings.groups": 1, "siblings.group_size": 4, "optimizer.warmup": 0, "checkpoint.every": 1,
    "evaluation.every": 1, "evaluation.tasks": 8, "evaluation.trials": 1, "evaluation.greedy": False,
}  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two arms, one with a permuted twin, two seeds, and a grid of one point."""
    path = tmp_path / "study.yaml"
    text = {
        "version": 1, "title": "Small", "recipe": str(ROOT / "recipes/lab/grpo.yaml"), "keys": KEYS,
        "arms": {"grpo": {}, "entropy": {"method": {"name": "entropy"}}},
        "compare_with": ["grpo"], "permuted": ["entropy"], "seeds": [1, 2],
        "tuning": {"seeds": [9], "grid": {"optimizer.lr": [1e-4]}},
    }  # fmt: skip
    path.write_text(json.dumps(text))
    return path


def start(study: Path, runs: Path) -> "subprocess.Popen[str]":
    script = "import sys; from sgcd.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", script, "study", str(study), "--runs", str(runs), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def kill_once_there(process: "subprocess.Popen[str]", path: Path) -> None:
    """Kill a study with all its processes as soon as a file exists."""
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_study_that_was_killed_twice_ends_with_the_same_bytes(study: Path, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    out, err = start(study, straight).communicate(timeout=900)
    assert "entropy seed 2 finished; 1 runs left" in err
    kill_once_there(start(study, killed), killed / "tuning/entropy/lr=0.0001/9/recipe.yaml")
    kill_once_there(start(study, killed), killed / "seeds/entropy/1/checkpoints/0001")
    again, err = start(study, killed).communicate(timeout=900)
    assert "1 of 6 runs are finished already" in err
    assert again == out
    for name in RESULTS:
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    result = json.loads(out)
    assert (result["runs"]["finished"], result["runs"]["started"], result["runs"]["started_for_tuning"]) == (6, 6, 2)
    check_against_the_runs(result, straight)


def check_against_the_runs(result: dict[str, Any], folder: Path) -> None:
    """The paired difference is that of `sgcd compare` on the same runs, which are ordinary ones."""
    sides = [[load_evaluation(folder / "seeds" / arm / str(seed)) for seed in (1, 2)] for arm in ("entropy", "grpo")]
    compared = compare_evaluations(sides[0], sides[1])["modes"]["sampled"]["overall"]["difference"]["value"]
    [row] = result["differences"][0]["rows"]
    assert row["value"] == pytest.approx(compared)
    assert main(["check", str(folder / "seeds/grpo/1")]) == 0


def test_a_crashed_run_is_missing_and_the_others_are_compared(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rule.py").write_text("class Rule:\n    def signal(self, rollout):\n        raise OSError('no rule')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(tmp_path))
    text = json.loads(study.read_text())
    text |= {
        "arms": {"grpo": {}, "own": {"method": {"name": "own", "class": "rule:Rule"}}},
        "permuted": [],
        "tuning": None,
    }
    study.write_text(json.dumps(text))
    assert main(["study", str(study), "--runs", str(tmp_path / "runs"), "--jobs", "2", "--json"]) == 0
    shown = capsys.readouterr()
    missing = json.loads(shown.out)["runs"]["missing"]
    assert [(row["arm"], row["seed"]) for row in missing] == [("own", 1), ("own", 2)]
    assert all("no rule" in row["reason"] for row in missing)
    assert "own seed 1 crashed" in shown.err
