"""Further whole runs on verl, which `make test-verl` runs and CI does not: they take minutes."""

import os
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not in this environment; `make test-verl` runs these tests in .venv-verl")
import torch
from safetensors.torch import load_file

from helpers.verl_runs import RECIPE, kill_after_step, run_sgcd, start_sgcd
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


FAILING = "{name: llm, base_url: http://127.0.0.1:9/v1, model: nobody, retries: 0}"
"""No server listens there."""


def test_without_credit_it_is_grpo_of_verl_to_the_last_bit(tmp_path: Path) -> None:
    """With gamma 0, and where the writer's endpoint fails and all weights are one."""
    grpo = final_weights(train(tmp_path, "grpo", "steps=1", "method={name: grpo}"))
    gamma = final_weights(train(tmp_path, "gamma", "steps=1", "method={name: sgcd, gamma: 0.0, k: 20}"))
    assert all(torch.equal(grpo[name], gamma[name]) for name in grpo)
    failed = train(tmp_path, "failed", "steps=1", f"reference.writer={FAILING}")
    [row] = failed.read_metrics()
    assert not row.skipped and row.reference is not None and row.reference.written == 0
    alone = final_weights(failed)
    assert all(torch.equal(grpo[name], alone[name]) for name in grpo)


def test_two_ranks_train(tmp_path: Path) -> None:
    rows = train(tmp_path, "run", "steps=3", ranks=2).read_metrics()
    assert [row.step for row in rows] == [1, 2, 3]
    assert all(row.sampler_gap_max is not None and row.sampler_gap_max < 1e-4 for row in rows if not row.skipped)


def test_a_lost_agent_loop_ends_in_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_sgcd(tmp_path / "home", "train", *RECIPE, "--run", str(run), "steps=3", "checkpoint.every=1")
    kill_after_step(process, run, 1, "AgentLoopWorker")
    _, errors = process.communicate(timeout=1500)
    assert process.returncode == 2 and "Traceback" not in errors, errors[-3000:]
    assert " lost" in errors and "resume" in errors
