"""Whole runs of the tiny policy with SGCD, for tests."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small import Watcher, heeding, living, recipe

from sgcd.learn.living import Living
from sgcd.learn.trainer import Trained, Trainer
from sgcd.run import RunFolder

SGCD: dict[str, Any] = {"name": "sgcd", "k": 5, "segments": {"tokens": 4}}
STEPS: dict[str, Any] = {"steps": 2, "evaluation": {"every": 9, "trials": 1}, "scoring": {"shuffled": 2}}


def train(
    path: Path, watcher: Watcher | None = None, prepare: Callable[[Living], None] | None = None, **changes: Any
) -> Trained:
    plan = recipe(**{"method": SGCD, **STEPS, **changes})
    alive = living(path, plan)
    heeding(alive.policy.model)
    if prepare:
        prepare(alive)
    try:
        return asyncio.run(Trainer(plan, alive, watcher or Watcher()).run())
    finally:
        alive.thread.shutdown()


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run, but for times and memory."""
    there = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    rows = [dict(row) for row in RunFolder.open(path).metrics()]
    for row in rows:
        del row["seconds"], row["peak_memory"]
    return {**there, "metrics.jsonl": repr(rows).encode()}


def policy(path: Path) -> bytes:
    return (path / "policy" / "model.safetensors").read_bytes()
