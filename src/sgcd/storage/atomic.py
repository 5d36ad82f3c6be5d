"""Files that survive being stopped at any instant: whole or absent, and JSON lines whose torn last line never was."""

import json
import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sgcd.errors import FolderError

SCHEMA = 1
"""Version of every file in a run's folder."""
Row = dict[str, Any]


def write_atomic(path: Path, content: bytes) -> None:
    """Write under a temporary name, force it to disk, then rename: a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _fsync(path.parent)


@contextmanager
def atomic_folder(final: Path) -> Generator[Path, None, None]:
    """A folder that is filled under a temporary name and takes the place of `final` when all of it is on disk.

    Stopped between its two renames there is no `final` for a moment; whoever resumes must write it again.
    """
    new, old = (final.with_name(f".{final.name}.{which}.new") for which in ("next", "last"))
    remove(new)
    new.mkdir(parents=True)
    yield new
    for path in new.rglob("*"):
        _fsync(path)
    _fsync(new)
    remove(old)
    if final.exists():
        final.rename(old)
    new.rename(final)
    _fsync(final.parent)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder. A folder loses its name first, so that a half-deleted one is never taken for whole."""
    if path.is_dir():
        if not path.name.startswith("."):
            hidden = path.with_name(f".{path.name}.last.new")
            remove(hidden)
            path.rename(hidden)
            path = hidden
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, flushed and forced to disk; a torn last line, left by a stop, is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.truncate(_complete_size(file))
        file.write(b"".join(to_json_line({"schema": SCHEMA, **row}) for row in rows))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """All rows; a last line that a stop has torn counts as never written."""
    if not path.exists():
        return []
    rows: list[Row] = []
    with path.open("rb") as file:
        text = file.read(_complete_size(file))
    for number, raw_line in enumerate(text.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(raw_line)
        except ValueError as problem:
            raise FolderError(
                f"{path}, line {number}: not JSON ({problem}); expected a row, remove the line"
            ) from problem
        check_schema(row, f"{path}, line {number}")
        rows.append(row)
    return rows


def _complete_size(file: IO[bytes]) -> int:
    """How much of a file is whole lines; leaves the position at its beginning."""
    size = file.seek(0, os.SEEK_END)
    block = 1
    while size:
        start = max(0, size - block)
        file.seek(start)
        newline = file.read(size - start).rfind(b"\n")
        if newline >= 0:
            size = start + newline + 1
            break
        size, block = start, 1 << 16
    file.seek(0)
    return size


def to_json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def check_schema(row: Mapping[str, Any], where: object) -> None:
    if row.get("schema") != SCHEMA:
        version = row.get("schema")
        raise FolderError(
            f"{where}: schema {version}, expected {SCHEMA}; read it with the version of sgcd that wrote it"
        )
