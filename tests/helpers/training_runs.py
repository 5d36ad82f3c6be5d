"""Whole runs of the tiny policy with SGCD, and groups of siblings, for tests."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.tiny_policy import Watcher, build_context, make_context_sensitive, recipe, rollout
from sgcd.contrast.leakage.masking import Literals
from sgcd.contrast.reference import ReferenceResult
from sgcd.learn.training.context import RunContext
from sgcd.learn.training.trainer import Trainer, TrainResult
from sgcd.records import Group, Reference, Task, Turn, Verdict
from sgcd.storage.manifest import MANIFEST_FILE
from sgcd.storage.run_folder import RunFolder

SGCD: dict[str, Any] = {"name": "sgcd", "k": 5, "segments": {"min_tokens": 4}}
STEPS: dict[str, Any] = {"steps": 2, "evaluation": {"every": 9, "trials": 1}, "scoring": {"reading_every": 2}}


LONG = "x" * 20 + ".." + "x" * 20


def group(*masks: str, task: str = "t", wins: int = 1) -> Group:
    """Siblings of which the first `wins` succeeded; each stretch of x is a turn."""
    return Group(
        Task(task, "action", {}),
        tuple(
            replace(
                rollout(mask, task, index),
                turns=_turns(mask),
                verdict=Verdict(float(index < wins), index < wins),
            )
            for index, mask in enumerate(masks)
        ),
    )


def _turns(mask: str) -> tuple[Turn, ...]:
    edges = [at for at in range(len(mask) + 1) if (mask[at - 1 : at] == "x") != (mask[at : at + 1] == "x")]
    return tuple(Turn(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True))


def referred(siblings: Group, text: str = "cabin seat") -> ReferenceResult:
    reference = Reference(siblings.task.id, text, "by hand") if text else None
    return ReferenceResult(siblings.task.id, reference, "" if text else "writer gave nothing", Literals.from_texts([]))


def train(
    path: Path, watcher: Watcher | None = None, prepare: Callable[[RunContext], None] | None = None, **changes: Any
) -> TrainResult:
    plan = recipe(**{"method": SGCD, **STEPS, **changes})
    context = build_context(path, plan)
    make_context_sensitive(context.policy.model)
    if prepare:
        prepare(context)
    try:
        return asyncio.run(Trainer(plan, context, watcher or Watcher(), folder=RunFolder.open(path)).run())
    finally:
        context.model_thread.shutdown()


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a run, but for times and memory, and for the manifest, whose sizes depend on them."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    rows = [dict(row) for row in RunFolder.open(path).read_metrics()]
    for row in rows:
        del row["seconds"], row["peak_memory"]
    del files[MANIFEST_FILE]
    return {**files, "metrics.jsonl": repr(rows).encode()}


def policy(path: Path) -> bytes:
    return (path / "policy" / "model.safetensors").read_bytes()
