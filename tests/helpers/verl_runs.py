"""Runs `sgcd train` on verl with the shim of verl_cpu.py, in a process of its own with Ray on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIM_KEYS = {
    "trainer.device": "cpu",
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    "ray_kwargs.ray_init.num_cpus": 16,
    "+ray_kwargs.ray_init.include_dashboard": False,
}
RECIPE = [
    "recipes/lab/sgcd.yaml",
    "engine=verl",
    "siblings={groups: 2, group_size: 4, rounds: 4, limits: {turns: 8, tokens: 224}}",
    "optimizer.warmup=0",
]


def shim_environment(home: Path) -> dict[str, str]:
    """The variables with which verl takes the CPU for its accelerator; Ray writes into HOME."""
    return {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "helpers.verl_cpu",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",  # a machine that is busy takes its time
        "RAY_gcs_server_request_timeout_seconds": "300",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
        "OMP_NUM_THREADS": "1",
    }


def run_sgcd(home: Path, *words: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    keys = {**SHIM_KEYS, "+ray_kwargs.ray_init.num_gpus": ranks}
    verl = {"gpus": ranks, "rollout": "model", "agent_loops": 1, "prompt_tokens": 512, "keys": keys}
    command = [sys.executable, "-W", "ignore", "-m", "sgcd", *words]
    if "--resume" not in words:
        command.append(f"verl={json.dumps(verl)}")
    home.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        command, cwd=ROOT, env=shim_environment(home), capture_output=True, text=True, timeout=1500, check=False
    )
