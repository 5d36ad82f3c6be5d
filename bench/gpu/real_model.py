"""The real model of examples/real on this device: the supervised start, then GRPO and SGCD from it, side by side."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_EXAMPLE = Path(__file__).resolve().parents[2] / "examples/real"
_METHODS = ("grpo", "sgcd")
_START_STEP = 20
_TRAIN_SECONDS = 210
"""Runs are stopped then; their last checkpoint is evaluated."""
_TRAIN = ["steps=60", "siblings.groups=8", "sampler.slots=64", "scoring.reading_every=10", "checkpoint.every=10"]
_START = ["optimizer.micro_batch_tokens=32768"]
_TINY_TRAIN = ["steps=1", "siblings={groups: 1, group_size: 2, rounds: 1, limits: {turns: 2, tokens: 8}}"]
_TINY_START = ["supervised.batch_size=2", "policy.dtype=float32", "supervised.epochs=1", "checkpoint.every=1"]


def run_example(tiny: bool) -> Iterator[dict[str, Any]]:
    """Figures of the start, of each run, and of the evaluation of each on held-out tasks."""
    model = Path(os.environ.get("SGCD_GPU_MODEL", _EXAMPLE / "model"))
    if not model.exists():
        yield {"not run": f"{model} is not here: make real"}
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_example(folder, model.resolve(), tiny)
        step = 1 if tiny else _START_STEP
        start = f"runs/start/checkpoints/{step:04}"
        began = time.monotonic()
        if sgcd(folder, ["sft", "sft.yaml", "--run", "runs/start", *(_TINY_START if tiny else _START)]).returncode:
            sys.exit("the supervised start failed")
        yield {"start": rows_of(folder / "runs/start"), "seconds": time.monotonic() - began}
        began = time.monotonic()
        options = [f"policy.start={start}", *(_TINY_TRAIN if tiny else _TRAIN)]
        train_side_by_side(folder, options)
        for name in _METHODS:
            yield {name: rows_of(folder / "runs" / name), "seconds": time.monotonic() - began}
        num_tasks = "1" if tiny else "100"
        policies = {"start": [start, "--recipe", "sft.yaml"], **{name: [f"runs/{name}"] for name in _METHODS}}
        for name, policy in policies.items():
            done = sgcd(
                folder, ["evaluate", *policy, "--split", "test", "--tasks", num_tasks, "--trials", "1", "--json"]
            )
            yield {"evaluation": name, "result": json.loads(done.stdout or "null")}


def copy_example(folder: Path, model: Path, tiny: bool) -> None:
    """The recipes and the desk, their data, and the model; the miniature has two conversations and a model of its own,
    whose template lists tools."""
    for path in [*_EXAMPLE.glob("*.yaml"), *_EXAMPLE.glob("*.py")]:
        shutil.copy(path, folder)
    subprocess.run([sys.executable, "make_data.py", "data"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "model").symlink_to(model)
    if not tiny:
        return
    for path in (folder / "data").glob("demonstrations-*.jsonl"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    recipe = folder / "sft.yaml"
    lines = recipe.read_text().splitlines(keepends=True)
    recipe.write_text("".join(line for line in lines if "tool_instruction" not in line))


def train_side_by_side(folder: Path, options: Sequence[str]) -> None:
    """Both methods in a process each: a single one leaves the device idle between its steps."""
    running = [start_sgcd(folder, ["train", f"{name}.yaml", "--run", f"runs/{name}", *options]) for name in _METHODS]
    deadline = time.monotonic() + _TRAIN_SECONDS
    for process in running:
        try:
            process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def rows_of(run: Path) -> list[dict[str, Any]]:
    """What each step came to: success, mixed tasks, tokens, seconds, credit."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    kept = ("step", "success", "tasks", "mixed", "loss", "grad_norm", "tokens_sampled", "tokens", "seconds", "invalid")
    return [{name: row[name] for name in kept if name in row} | credit_of(row) for row in rows]


def credit_of(row: dict[str, Any]) -> dict[str, Any]:
    credit = row.get("credit") or {}
    return {f"credit {name}": credit[name] for name in ("credited", "creditable", "reading") if credit.get(name)}


def sgcd(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments), cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, check=False
    )


def start_sgcd(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(arguments), cwd=folder, env=environment(), stdout=subprocess.DEVNULL)


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "sgcd", *arguments]


def environment() -> dict[str, str]:
    """Nothing is asked of the network."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
