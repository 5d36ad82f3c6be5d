"""Verifies a run's folder: all of it, or a checkpoint with the rows that led to it; and falls back to a whole one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgcd.errors import DamageError, FolderError
from sgcd.storage.atomic import check_schema, remove
from sgcd.storage.manifest import (
    MANIFEST_FILE,
    RunManifest,
    file_checksum,
    find_file_damage,
    find_folder_damage,
)
from sgcd.storage.record_files import reading
from sgcd.storage.rows import drop_damaged_rows, scan_rows
from sgcd.storage.run_folder import ROW_FILES, STATE_FILE, RunFolder, RunKind

_STATE_TYPES: dict[str, type | tuple[type, ...]] = {"step": int, "cursor": dict, "best": (dict, type(None))}
"""What is read of a trainer's state before the trainer itself reads all of it."""


@dataclass(slots=True)
class FolderReport:
    """What `sgcd check RUN` found."""

    damage: list[str] = field(default_factory=list[str])
    num_verified: int = 0
    """Files whose checksum, or whose rows' checks, were compared."""
    num_unverified: int = 0
    """Files of which nothing is recorded."""

    def add(self, num_files: int, is_verified: bool) -> None:
        """Count files."""
        if is_verified:
            self.num_verified += num_files
        else:
            self.num_unverified += num_files


def verify_run(path: Path) -> FolderReport:
    """Compare every file of a run's folder with what is recorded of it."""
    report = FolderReport()
    try:
        folder = RunFolder.open(path)
    except DamageError as damage:
        report.damage.append(damage.problem)
        return report
    report.add(3 if folder.has_checksums else 2, folder.has_checksums)  # facts.json, recipe.yaml and the manifest
    _verify_rows(folder, report)
    _verify_step_files(folder, report)
    for policy in (*map(folder.checkpoint_path, folder.checkpoint_steps()), folder.best_path, folder.policy_path):
        if policy.is_dir():
            report.damage += find_folder_damage(policy, needs_manifest=folder.has_checksums)
            num_files = sum(entry.is_file() for entry in policy.rglob("*"))
            report.add(num_files, (policy / MANIFEST_FILE).exists())
    for step in folder.checkpoint_steps()[-1:]:
        report.damage += find_checkpoint_damage(folder, step)
    report.damage = list(dict.fromkeys(report.damage))
    return report


def _verify_rows(folder: RunFolder, report: FolderReport) -> None:
    manifest = folder.row_files.read_manifest()
    names = {entry.name for entry in folder.path.glob("*.jsonl")} | set(manifest.rows if manifest else ())
    for name in sorted(names):
        is_counted = manifest is not None and name in manifest.rows
        scan = folder.row_files.scan(name) if is_counted else scan_rows(folder.path / name)
        report.damage += scan.problems
        report.add(1, folder.has_checksums)
    report.damage += find_lost_calls(folder)


def _verify_step_files(folder: RunFolder, report: FolderReport) -> None:
    checksums = folder.step_checksums()
    for name, checksum in checksums.items():
        report.damage += find_file_damage(folder.path / name, [checksum])
    report.add(len(checksums), True)
    report.add(len(set(folder.step_files()) - set(checksums)), False)


# -- a checkpoint ------------------------------------------------------------------------------------------------------


def check_resumable_state(folder: RunFolder) -> None:
    """Refuse to go on from the newest checkpoint when it, or the history before it, is damaged."""
    steps = folder.checkpoint_steps()
    problems = [*(find_checkpoint_damage(folder, steps[-1]) if steps else ())]
    problems += folder.row_files.scan("evaluation.jsonl").problems if steps else []
    if problems:
        raise FolderError(
            f"{problems[0]}; restore it from a copy, or go on from the newest checkpoint that is whole: "
            f"{resume_command(folder)} --fall-back"
        )


def resume_command(folder: RunFolder) -> str:
    """The command that goes on with a run."""
    command = {"supervised": "sft --run", "recorded": "credit --out"}.get(folder.kind, "train --run")
    return f"sgcd {command} {folder.path} --resume"


def check_trained(folder: RunFolder, kind: RunKind) -> None:
    """Refuse the folder of an evaluation, or of a run of another kind."""
    if folder.kind not in ("evaluation", kind):
        raise FolderError(f"{folder.path}: is a run of another command; go on with it by {resume_command(folder)}")
    if folder.kind != kind:
        raise FolderError(
            f"{folder.path}: holds the evaluation of a model, and no run that was trained; name another folder"
        )


def find_checkpoint_damage(folder: RunFolder, step: int) -> Iterator[str]:
    """What keeps a run from going on from a checkpoint: its own files, the rows up to it, or the best policy so far."""
    path = folder.checkpoint_path(step)
    problems = [*find_folder_damage(path, needs_manifest=folder.has_checksums)]
    yield from problems
    if problems:
        return
    try:
        state = read_checkpoint_state(path)
    except DamageError as damage:
        yield damage.problem
        return
    for name, num_rows in {"metrics.jsonl": step, **state.get("rows", {})}.items():
        scan = folder.row_files.scan(name)
        if scan.num_before_damage < num_rows:
            short = (
                f"{folder.path / name}: has {scan.num_before_damage} rows, expected the {num_rows} up to step {step}"
            )
            yield scan.problems[0] if scan.problems else short
    yield from find_lost_calls(folder, step)
    best = state["best"]
    if best and not has_whole_best(folder, best["step"]):
        yield f"{folder.best_path}: is missing or damaged, and no checkpoint of step {best['step']} is left to mend it"


def has_whole_best(folder: RunFolder, step: int) -> bool:
    """Whether the best policy, that of `step`, is there: as the checkpoint of the step, or as a whole `best`."""
    return any(
        path.is_dir()
        and not any(find_folder_damage(path, needs_manifest=folder.has_checksums))
        and read_checkpoint_state(path)["step"] == step
        for path in (folder.checkpoint_path(step), folder.best_path)
    )


def find_lost_calls(folder: RunFolder, step: int | None = None) -> Iterator[str]:
    """Journals of calls with fewer whole rows than the row of metrics of a step (the newest by default) counts."""
    rows = [row for row in folder.scan_metrics()[0] if step is None or row.step <= step]
    journals = {"writer": folder.calls_path, "user": folder.user_calls_path}
    for role, usage in rows[-1].endpoint_usage.items() if rows else ():
        num_calls = len(scan_rows(journals[role]).rows)
        if num_calls < usage.spent.calls:
            yield f"{journals[role]}: has {num_calls} whole rows, expected the {usage.spent.calls} calls of the run"


def read_checkpoint_state(path: Path) -> dict[str, Any]:
    with reading(path / STATE_FILE):
        state = json.loads((path / STATE_FILE).read_bytes())
        check_schema(state, path / STATE_FILE)
        for name, kind in _STATE_TYPES.items():
            if not isinstance(state.get(name), kind):
                raise ValueError(f"expected {name}, a trainer's state has one")
        if state["best"] and not isinstance(state["best"].get("step"), int):
            raise ValueError("expected the step of the best policy")
    return state


# -- falling back ------------------------------------------------------------------------------------------------------


def restore_whole_checkpoint(path: Path, kind: RunKind = "training") -> list[str]:
    """Make the newest whole checkpoint the newest one, and drop what is damaged or came after it.

    Returns what was damaged, and where the run goes on; nothing if it is whole. Damage of recipe.yaml or facts.json
    cannot be mended.
    """
    messages = _mend_manifest(path)
    folder = RunFolder.open(path)
    check_trained(folder, kind)
    messages += [*folder.row_files.scan("evaluation.jsonl").problems]
    for journal in (folder.calls_path, folder.user_calls_path):
        messages += drop_damaged_rows(journal)
    step = -1
    for candidate in reversed(folder.checkpoint_steps()):
        problems = [*find_checkpoint_damage(folder, candidate)]
        messages += problems
        if not problems:
            step = candidate
            break
    if not messages:
        return []
    folder.rewind(step)
    remove_damaged_best(folder, step)
    for damaged in folder.checkpoint_steps():
        if damaged > step:
            remove(folder.checkpoint_path(damaged))
    start = f"step {step}" if step >= 0 else "the start, since no checkpoint is whole"
    return [*dict.fromkeys(messages), f"going on from {start}"]


def remove_damaged_best(folder: RunFolder, step: int) -> None:
    """Remove `best` if it is damaged or came after `step`; its checkpoint, or the run, makes it again."""
    best = folder.best_path
    if best.is_dir() and (
        any(find_folder_damage(best, needs_manifest=folder.has_checksums)) or read_checkpoint_state(best)["step"] > step
    ):
        remove(best)


def _mend_manifest(path: Path) -> list[str]:
    """Make a damaged manifest of a run anew, from the files as they are; its rows have checks of their own."""
    try:
        RunFolder.open(path)
    except DamageError as damage:
        manifest_path = path / MANIFEST_FILE
        if not damage.problem.startswith(str(manifest_path)):
            raise
        files = {name: [file_checksum(path / name)] for name in ("facts.json", "recipe.yaml")}
        RunManifest(manifest_path, files, dict.fromkeys(ROW_FILES)).write()
        return [damage.problem]
    return []
