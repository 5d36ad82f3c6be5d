"""Manifests: checksums of files and counts of rows, kept beside them, so that damage is noticed when a file is read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from time import time_ns
from typing import Any

from sgcd.errors import DamageError
from sgcd.storage.atomic import SCHEMA, Row, to_json_line, write_atomic, writing
from sgcd.storage.rows import (
    RowCount,
    RowScan,
    append_checked_rows,
    append_rows,
    parse_checked_file,
    read_rows,
    scan_rows,
    to_checked_line,
)

MANIFEST_FILE = "sgcd-manifest.json"
"""In the folder of a run, of a checkpoint and of a saved policy. Its own line has a check."""
_SETTLED_NS = 10**9
"""A file that was written less than a second ago may change once more under the same time of writing."""
_known_checksums: dict[tuple[int, ...], str] = {}
"""By device, inode, size and time of writing: a resumed run looks several times at files of gigabytes."""


# -- a folder that is written as a whole: a checkpoint, a policy -------------------------------------------------------


def write_folder_manifest(folder: Path) -> None:
    """Record the checksum of every file in a folder; the folder is still under its temporary name."""
    files = {str(path.relative_to(folder)): file_checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MANIFEST_FILE).write_bytes(to_checked_line(MANIFEST_FILE, 1, {"schema": SCHEMA, "files": files}))


def _is_any(name: str) -> bool:
    return True


def is_light_file(name: str) -> bool:
    """Whether a file of a policy is small; its weights are verified by whoever loads them."""
    return not name.endswith(".safetensors")


def find_folder_damage(
    folder: Path, *, needs_manifest: bool, is_read: Callable[[str], bool] = _is_any
) -> Iterator[str]:
    """What is wrong with the files of a folder that `is_read` chooses; nothing is known of one without a manifest."""
    manifest_path = folder / MANIFEST_FILE
    if not manifest_path.is_file():
        if needs_manifest:
            yield f"{manifest_path}: is missing"
        return
    try:
        files: Mapping[str, str] = parse_checked_file(manifest_path)["files"]
    except DamageError as damage:
        yield damage.problem
        return
    except (KeyError, OSError) as problem:
        yield f"{manifest_path}: is not the manifest of this folder ({problem!r})"
        return
    for name, checksum in files.items():
        if is_read(name):
            yield from find_file_damage(folder / name, [checksum])


def check_folder(folder: Path, *, needs_manifest: bool, is_read: Callable[[str], bool] = _is_any) -> None:
    """Refuse a folder with a damaged file."""
    for problem in find_folder_damage(folder, needs_manifest=needs_manifest, is_read=is_read):
        raise DamageError(problem)


def find_file_damage(path: Path, checksums: Sequence[str]) -> Iterator[str]:
    """What is wrong with a file that must have one of these checksums."""
    if not path.is_file():
        yield f"{path}: is missing"
    elif file_checksum(path) not in checksums:
        yield f"{path}: is not as it was written, its checksum differs from the recorded one"


def file_checksum(path: Path) -> str:
    """The checksum of a file. A process reads a settled file once, under all its names."""
    stat = path.stat()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if identity not in _known_checksums:
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if time_ns() - stat.st_mtime_ns < _SETTLED_NS:
            return found
        _known_checksums[identity] = found
    return _known_checksums[identity]


def checksum(content: bytes) -> str:
    return sha256(content).hexdigest()


# -- a run -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RunManifest:
    """The manifest of a run's folder: its single files, and the rows of its row files."""

    path: Path
    files: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Checksums by file. While a file is being replaced, of its old content as well."""
    rows: dict[str, RowCount | None] = field(default_factory=dict[str, RowCount | None])
    """None for a file that is being rewritten: its rows have checks and no count."""

    @classmethod
    def read(cls, path: Path) -> "RunManifest":
        if not path.is_file():
            raise DamageError(f"{path}: is missing")
        try:
            row = parse_checked_file(path)
            rows = {name: count and RowCount(*count) for name, count in row["rows"].items()}
            return cls(path, row["files"], rows)
        except (KeyError, TypeError, AttributeError) as problem:
            raise DamageError(f"{path}: is not the manifest of a run ({problem!r})") from problem

    def write(self) -> None:
        rows = {name: count and [count.num_rows, count.num_bytes] for name, count in self.rows.items()}
        row = {"schema": SCHEMA, "files": self.files, "rows": rows}
        write_atomic(self.path, to_checked_line(self.path.name, 1, row))

    def replace_file(self, path: Path, content: bytes) -> None:
        """Replace a file of the folder; stopped at any instant, it has a checksum that is recorded."""
        self.files[path.name] = [checksum(content), *self.files.get(path.name, [])]
        self.write()
        write_atomic(path, content)
        self.files[path.name] = [checksum(content)]
        self.write()

    def check_file(self, path: Path) -> None:
        """Refuse a file of the folder that is damaged."""
        for problem in find_file_damage(path, self.files.get(path.name, [])):
            raise DamageError(problem)


class RowFiles:
    """The row files of a run's folder. With a manifest their rows have checks and are counted."""

    def __init__(self, folder: Path, has_manifest: bool) -> None:
        self.folder = folder
        self.has_manifest = has_manifest

    def read_manifest(self) -> RunManifest | None:
        """The manifest as it is now, since another process may be writing."""
        return RunManifest.read(self.folder / MANIFEST_FILE) if self.has_manifest else None

    def count(self, name: str) -> RowCount | None:
        manifest = self.read_manifest()
        return manifest.rows.get(name, RowCount()) if manifest else None

    def num_rows(self, name: str) -> int:
        """How many rows there are on record; 0 without a manifest."""
        count = self.count(name)
        return count.num_rows if count else 0

    def read(self, name: str) -> list[Row]:
        """All rows, none damaged."""
        return read_rows(self.folder / name, self.count(name))

    def scan(self, name: str) -> RowScan:
        """The whole rows, and what is wrong with the others."""
        return scan_rows(self.folder / name, self.count(name))

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows, all or none."""
        manifest = self.read_manifest()
        if manifest is None:
            append_rows(self.folder / name, rows)
            return
        manifest.rows[name] = append_checked_rows(self.folder / name, rows, manifest.rows.get(name) or RowCount())
        manifest.write()

    def remove(self, name: str) -> None:
        """Remove a row file, whether it is there or not."""
        manifest = self.read_manifest()
        if manifest and manifest.rows.pop(name, None):
            manifest.write()
        with writing(self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def rewind(self, name: str, step: int) -> None:
        """Drop every row after `step`, and every damaged one."""
        path, manifest = self.folder / name, self.read_manifest()
        rows = [row for row in self.scan(name).rows if row["step"] <= step]
        if manifest is None:
            if path.exists():
                write_atomic(path, b"".join(to_json_line(row) for row in rows))
            return
        count = manifest.rows.get(name)
        size = path.stat().st_size if path.exists() else 0
        if count and (len(rows), size) == (count.num_rows, count.num_bytes):
            return
        lines = [to_checked_line(name, number, row) for number, row in enumerate(rows, start=1)]
        manifest.rows[name] = None  # until both are written
        manifest.write()
        write_atomic(path, b"".join(lines))
        manifest.rows[name] = RowCount(len(lines), sum(map(len, lines)))
        manifest.write()
