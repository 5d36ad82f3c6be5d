"""Runs `sgcd train` on verl with the shim of verl_cpu.py, in a process of its own with Ray on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
    "evaluation={tasks: 1, trials: 0}",
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
        "RAY_worker_niceness": "0",  # with Ray's 15 its workers hardly run on a busy machine
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_gcs_server_request_timeout_seconds": "300",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
        "OMP_NUM_THREADS": "1",
    }


def run_sgcd(home: Path, *words: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    process = start_sgcd(home, *words, ranks=ranks)
    output, errors = process.communicate(timeout=1500)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def start_sgcd(home: Path, *words: str, ranks: int = 1, **variables: str) -> subprocess.Popen[str]:
    keys = {**SHIM_KEYS, "+ray_kwargs.ray_init.num_gpus": ranks}
    verl = {"gpus": ranks, "rollout": "model", "agent_loops": 1, "prompt_tokens": 512, "keys": keys}
    command = [sys.executable, "-W", "ignore", "-m", "sgcd", *words]
    if "--resume" not in words:
        command.append(f"verl={json.dumps(verl)}")
    home.mkdir(parents=True, exist_ok=True)
    environment = {**shim_environment(home), **variables}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_after_step(process: subprocess.Popen[str], run: Path, step: int, name: str) -> None:
    """Once a step is in the run's folder with its checkpoint, kill the process of Ray that has this in its name."""
    wait_for_step(process, run, step)
    newest = run / "verl" / "latest_checkpointed_iteration.txt"
    wait_for(process, lambda: newest.is_file() and int(newest.read_text() or 0) >= step)
    home = run.parent / "home"
    found = {pid: command for pid, command in ray_processes(home) if name in command}
    assert len(found) == 1, [command for _, command in ray_processes(home)]
    os.kill(next(iter(found)), signal.SIGKILL)


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until the run's folder has the row of a step."""
    metrics = run / "metrics.jsonl"
    wait_for(process, lambda: metrics.is_file() and metrics.read_text().count("\n") >= step)


def wait_for(process: subprocess.Popen[str], is_done: Callable[[], bool]) -> None:
    """Until this is so; the process must not end before."""
    deadline = time.monotonic() + 1500
    while not is_done():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "what was waited for did not come in 25 minutes"
        time.sleep(0.2)


def ray_processes(home: Path) -> Iterator[tuple[int, str]]:
    """Processes that Ray has named after their actors, of the run whose HOME this is."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_text().replace("\0", " ")
            if command.startswith("ray::") and f"HOME={home}\0" in (folder / "environ").read_text(errors="replace"):
                yield int(folder.name), command
