"""A run as one archive to share: without weights, and refused while a text in it looks like a key."""

import gzip
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sgcd.errors import FolderError
from sgcd.storage.atomic import write_atomic
from sgcd.storage.run_folder import REPORT_FILE, RunFolder

_TEXT_SUFFIXES = (".jsonl", ".json", ".yaml", ".html", ".md", ".txt")
_TEXT_FOLDERS = ("rollouts", "references", "credit")
"""What a run keeps of its tasks' texts; credit is read together with rollouts."""
_LEFT_OUT = ("checkpoints", "policy", "adapter", "trackers", "plots")
"""Weights, and what can be made again."""
_CALL_FILES = ("calls.jsonl", "user-calls.jsonl")
"""What was sent to models over the network."""
_CLOSED_ENVIRONMENTS: Mapping[str, str] = {
    "appworld": "AppWorld's licence asks that its tasks and solutions are not shared as plain text",
}
"""Environments whose texts are never shared, and why."""
_SECRET_PATTERNS: Mapping[str, str] = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of a model's server": r"\b(?:sk|rk|pk)-[A-Za-z0-9_-]{20,}",
    "a token of the Hugging Face hub": r"\bhf_[A-Za-z0-9]{30,}",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    "a key of AWS": r"\bAKIA[0-9A-Z]{16}\b",
    "a header with a key": r"(?i)\bauthorization\W{1,6}bearer\s+[\w.-]{16,}",
}
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
_MIN_SECRET_CHARS = 12


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was written."""

    path: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]
    """What is not in it and why, and what only its owner can judge."""


def write_bundle(run: Path, out: Path, *, has_texts: bool) -> Bundle:
    """Pack a run; the same run gives the same bytes."""
    folder = RunFolder.open(run)
    environment = str(folder.read_recipe()["environment"].get("name", ""))
    notes = [f"without weights, trackers and plots: {', '.join(_LEFT_OUT)}"]
    if reason := _CLOSED_ENVIRONMENTS.get(environment):
        has_texts = False
        notes.append(f"without the texts of rollouts: {reason}")
    if sharing := str(folder.facts.get("sharing", "")):
        notes.append(f"sharing: {sharing}")
    if folder.kind == "recorded" and has_texts:
        notes.append("the rollouts were recorded by another tool: share them only where their licence lets you")
    files = {name: run / name for name in list_shared_files(run, has_texts=has_texts)}
    secrets = [*find_secrets(files, read_secret_values(os.environ))]
    if secrets:
        more = f" (and {len(secrets) - 1} more)" if len(secrets) > 1 else ""
        raise FolderError(
            f"{secrets[0]}{more}; nothing was written: take it out of what the run reads, or leave the texts out by "
            "--no-texts"
        )
    write_atomic(out, _pack(f"{run.resolve().name}", files))
    return Bundle(out, tuple(files), tuple(notes))


def list_shared_files(run: Path, *, has_texts: bool) -> Iterator[str]:
    """The files of a run that a bundle holds, sorted."""
    left_out = {*_LEFT_OUT, *_CALL_FILES, *(() if has_texts else (*_TEXT_FOLDERS, REPORT_FILE))}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not path.is_symlink() and name.parts[0] not in left_out and not is_hidden:
            yield name.as_posix()


def read_secret_values(environment: Mapping[str, str]) -> set[str]:
    """Values of variables that are named like keys, as a run reads them."""
    return {
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET_CHARS and "/" not in value
    }


def find_secrets(files: Mapping[str, Path], values: set[str]) -> Iterator[str]:
    """Each file and line that holds what looks like a key, without the key."""
    patterns = {kind: re.compile(pattern) for kind, pattern in _SECRET_PATTERNS.items()}
    for name, path in files.items():
        if path.suffix not in _TEXT_SUFFIXES:
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                found = [kind for kind, pattern in patterns.items() if pattern.search(line)]
                found += ["the value of a variable that is named like a key" for value in values if value in line]
                if found:
                    yield f"{name}, line {number}: holds what looks like {found[0]}"


def _pack(root: str, files: Mapping[str, Path]) -> bytes:
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files.items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{root}/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
