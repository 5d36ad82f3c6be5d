"""Files and folders that are whole or absent, whenever a stop or a full disk comes."""

import errno
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgcd.errors import FolderError

SCHEMA = 1
"""Version of every file in a run's folder."""
Row = dict[str, Any]
_FREE_SPACE, _ALLOW_WRITING = "free some space there", "make it writable"
_DISK_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FREE_SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _ALLOW_WRITING),
    errno.EIO: "look after the disk",
}
"""What to do about a refusal of the disk, by its errno; any other error is a bug."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write under a temporary name, force it to disk, then rename: a reader sees all of it or none."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")  # two reports of one run may be written at once
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        _fsync(path.parent)


@contextmanager
def atomic_folder(final: Path) -> Generator[Path, None, None]:
    """A folder that is filled under a temporary name and takes the place of `final` when all of it is on disk.

    Stopped between its two renames there is no `final` for a moment; whoever resumes must write it again.
    """
    new, old = (final.with_name(f".{final.name}.{which}.new") for which in ("next", "last"))
    with writing(final):
        remove(new)
        try:
            new.mkdir(parents=True)
            yield new
            for path in new.rglob("*"):
                _fsync(path)
            _fsync(new)
            remove(old)
            if final.exists():
                final.rename(old)
            new.rename(final)
        except Exception:
            shutil.rmtree(new, ignore_errors=True)  # on a full disk its space is needed
            raise
        _fsync(final.parent)
        remove(old)


@contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Turn what a disk refuses into one line. Rust libraries raise types of their own, with the number in the text."""
    try:
        yield
    except Exception as problem:
        number = problem.errno if isinstance(problem, OSError) else _rust_errno(problem)
        if number not in _DISK_ADVICE:
            raise
        raise FolderError(
            f"{path}: cannot be written ({os.strerror(number)}); nothing is half written, {_DISK_ADVICE[number]} and "
            "repeat the command (a run goes on by --resume)"
        ) from problem


def _rust_errno(problem: Exception) -> int:
    found = re.search(r"\(os error (\d+)\)", str(problem))
    return int(found[1]) if found else 0


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


def to_json_line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def check_schema(row: Mapping[str, Any], where: object) -> None:
    if row.get("schema") != SCHEMA:
        version = row.get("schema")
        raise FolderError(
            f"{where}: schema {version}, expected {SCHEMA}; read it with the version of sgcd that wrote it"
        )
