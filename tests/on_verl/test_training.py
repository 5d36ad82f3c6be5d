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


def test_three_steps_of_sgcd_train_the_policy(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = run_sgcd(tmp_path / "home", "train", *RECIPE, "--run", str(run), "steps=3")
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
