"""Whole runs on verl: Ray on this machine, gloo, and a Hugging Face model in place of verl's server."""

from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not in this environment; `make test-verl` runs these tests in .venv-verl")
import torch
from safetensors.torch import load_file

from helpers.verl_runs import RECIPE, kill_after_step, run_sgcd, start_sgcd
from sgcd.learn.policy.load import resolve_model
from sgcd.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_three_steps_of_sgcd_train_the_policy_and_a_lost_worker_ends_in_one_line(tmp_path: Path) -> None:
    """The worker is killed in the second step; the run then goes on from the checkpoint of the first."""
    run = tmp_path / "run"
    keys = ["steps=3", "checkpoint.every=1", "evaluation={every: 2, tasks: 3, trials: 1}"]
    process = start_sgcd(tmp_path / "home", "train", *RECIPE, "--run", str(run), *keys)
    kill_after_step(process, run, 1, "WorkerDict")
    _, errors = process.communicate(timeout=1500)
    assert process.returncode == 2, errors[-6000:]
    [line] = [line for line in errors.splitlines() if line.startswith("sgcd: engine:")]
    assert "engine: a process of verl was lost" in line and f"sgcd train --run {run} --resume" in line
    assert "Traceback" not in errors

    done = run_sgcd(tmp_path / "home", "train", "--run", str(run), "--resume")
    assert done.returncode in (0, 1), done.stderr[-3000:]
    folder = RunFolder.open(run)
    rows = folder.read_metrics()
    assert [row.step for row in rows] == [1, 2, 3]
    moved = [row for row in rows if not row.skipped]
    assert moved
    for row in moved:
        assert row.kept and row.broken == 0
        assert row.sampler_gap_max is not None and row.sampler_gap_max < 1e-4
        assert row.credit is not None and row.credit.weight.mean is not None and row.credit.weight.mean > 1
        records = folder.read_credit(row.step)
        assert any(record.features is not None and record.features.divergence.max() > 0 for record in records.values())
    before, after = weights(resolve_model("lab:plain")), weights(folder.policy_path)
    assert any(not torch.equal(before[name], after[name]) for name in after)

    trials = folder.read_evaluations()
    expected = [(step, mode) for step in (0, 2, 3) for mode in ("greedy", "sampled") for _ in range(3)]
    assert [(row["step"], row["mode"]) for row in trials] == expected
    assert not any(row["broken"] for row in trials)
    assert {row["split"] for row in trials} == {"dev"} and all(row["tokens"] for row in trials)
