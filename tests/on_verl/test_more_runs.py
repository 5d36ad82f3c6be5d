"""Further whole runs on verl, which `make test-verl` runs and CI does not: they take minutes."""

import os
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not in this environment; `make test-verl` runs these tests in .venv-verl")
import torch
from safetensors.torch import load_file

from helpers.verl_runs import RECIPE, run_sgcd
from sgcd.storage.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("CI" in os.environ, reason="takes minutes; `make test-verl` runs it outside of CI"),
]


def train(tmp_path: Path, name: str, *keys: str, ranks: int = 1) -> RunFolder:
    run = tmp_path / name
    done = run_sgcd(tmp_path / "home", "train", *RECIPE, "--run", str(run), *keys, ranks=ranks)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return RunFolder.open(run)


def final_weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder.policy_path / "model.safetensors")


def test_without_credit_it_is_grpo_of_verl_to_the_last_bit(tmp_path: Path) -> None:
    grpo = final_weights(train(tmp_path, "grpo", "steps=1", "method={name: grpo}"))
    gamma = final_weights(train(tmp_path, "gamma", "steps=1", "method={name: sgcd, gamma: 0.0, k: 20}"))
    assert all(torch.equal(grpo[name], gamma[name]) for name in grpo)


def test_a_run_goes_on_after_its_last_step(tmp_path: Path) -> None:
    folder = train(tmp_path, "run", "steps=1")
    before = final_weights(folder)
    resumed = run_sgcd(tmp_path / "home", "train", "--run", str(folder.path), "--resume", "steps=2")
    assert resumed.returncode in (0, 1), resumed.stderr[-3000:]
    assert [row.step for row in RunFolder.open(folder.path).read_metrics()] == [1, 2]
    after = final_weights(folder)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_two_ranks_train(tmp_path: Path) -> None:
    rows = train(tmp_path, "run", "steps=2", ranks=2).read_metrics()
    assert [row.step for row in rows] == [1, 2]
    assert all(row.sampler_gap_max is not None and row.sampler_gap_max < 1e-4 for row in rows if not row.skipped)
