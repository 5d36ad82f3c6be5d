"""Whole runs on verl: Ray on this machine, gloo, and a Hugging Face model in place of verl's server."""

from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not in this environment; `make test-verl` runs these tests in .venv-verl")
import torch
from safetensors.torch import load_file

from helpers.verl_runs import RECIPE, run_sgcd
from sgcd.learn.policy.load import resolve_model
from sgcd.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_three_steps_of_sgcd_train_weigh_and_resume(tmp_path: Path) -> None:
    """Two steps and a checkpoint, then a third after --resume."""
    run = tmp_path / "run"
    first = run_sgcd(tmp_path / "home", "train", *RECIPE, "--run", str(run), "steps=2", "checkpoint.every=1")
    assert first.returncode in (0, 1), first.stderr[-3000:]
    resumed = run_sgcd(tmp_path / "home", "train", "--run", str(run), "--resume", "steps=3")
    assert resumed.returncode in (0, 1), resumed.stderr[-3000:]
    folder = RunFolder.open(run)
    rows = folder.read_metrics()
    assert [row.step for row in rows] == [1, 2, 3]
    moved = [row for row in rows if not row.skipped]
    assert moved
    for row in moved:
        assert row.kept and row.broken == 0
        assert row.sampler_gap_max is not None and row.sampler_gap_max < 1e-3
        assert row.credit is not None and row.credit.weight.mean is not None and row.credit.weight.mean > 1
        records = folder.read_credit(row.step)
        assert any(record.features is not None and record.features.divergence.max() > 0 for record in records.values())
    before, after = weights(resolve_model("lab:plain")), weights(folder.policy_path)
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_without_credit_it_is_grpo_of_verl_to_the_last_bit(tmp_path: Path) -> None:
    ends: list[dict[str, torch.Tensor]] = []
    for name, method in (("grpo", "{name: grpo}"), ("gamma", "{name: sgcd, gamma: 0.0, k: 20}")):
        run = tmp_path / name
        done = run_sgcd(tmp_path / "home", "train", *RECIPE, "--run", str(run), "steps=1", f"method={method}")
        assert done.returncode in (0, 1), done.stderr[-3000:]
        ends.append(weights(RunFolder.open(run).policy_path))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
