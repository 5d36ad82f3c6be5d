"""Row files: JSON lines that are only appended to. A torn last line never was; a lost or changed line is noticed."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from sgcd.errors import DamageError
from sgcd.storage.atomic import SCHEMA, Row, check_schema, to_json_line, write_atomic, writing

_CHECKED_LINE = re.compile(rb'(\{.*), "check": "([0-9a-f]{16})"\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class RowCount:
    """How much of a row file counts; what follows was not finished, and counts as never written."""

    num_rows: int = 0
    num_bytes: int = 0


@dataclass(slots=True)
class RowScan:
    """The rows of a file that are as they were written, and what is wrong with the others."""

    rows: list[Row] = field(default_factory=list[Row])
    problems: list[str] = field(default_factory=list[str])
    num_before_damage: int = 0
    """Whole rows before the first damaged one."""


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, flushed and forced to disk; a torn last line, left by a stop, is cut off first."""
    _append(path, None, b"".join(to_json_line({"schema": SCHEMA, **row}) for row in rows))


def append_checked_rows(path: Path, rows: Iterable[Mapping[str, Any]], count: RowCount) -> RowCount:
    """Append rows with checks behind the first `count` rows, in place of what lies there; returns the new count."""
    if count.num_bytes and (not path.is_file() or path.stat().st_size < count.num_bytes):
        raise DamageError(f"{path}: is shorter than its {count.num_rows} rows")
    lines = [
        to_checked_line(path.name, number, {"schema": SCHEMA, **row})
        for number, row in enumerate(rows, start=count.num_rows + 1)
    ]
    content = b"".join(lines)
    _append(path, count.num_bytes, content)
    return RowCount(count.num_rows + len(lines), count.num_bytes + len(content))


def drop_damaged_rows(path: Path) -> list[str]:
    """Rewrite a journal without its damaged rows; returns what was wrong with them."""
    scan = scan_rows(path)
    if scan.problems:
        lines = [to_checked_line(path.name, number, row) for number, row in enumerate(scan.rows, start=1)]
        write_atomic(path, b"".join(lines))
    return scan.problems


def _append(path: Path, size: int | None, content: bytes) -> None:
    """Append behind the first `size` bytes, or behind the last whole line."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.truncate(_complete_size(file) if size is None else size)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path, count: RowCount | None = None) -> list[Row]:
    """All rows, none damaged; a last line that a stop has torn counts as never written."""
    scan = scan_rows(path, count)
    if scan.problems:
        raise DamageError(scan.problems[0])
    return scan.rows


def scan_rows(path: Path, count: RowCount | None = None) -> RowScan:
    """Read the rows that `count` says there are, each with its check; without `count`, all whole lines."""
    scan = RowScan()
    if not path.exists():
        if count and count.num_rows:
            scan.problems.append(f"{path}: is missing, expected {count.num_rows} rows")
        return scan
    with path.open("rb") as file:
        content = file.read(_complete_size(file) if count is None else count.num_bytes)
    lines = content.split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            scan.rows.append(_parse_line(line, path, number, needs_check=count is not None))
        except DamageError as damage:
            scan.problems.append(damage.problem)
        if not scan.problems:
            scan.num_before_damage = number
    if count and len(lines) < count.num_rows:
        scan.problems.append(f"{path}: has {len(lines)} whole rows, expected {count.num_rows}")
    return scan


def _parse_line(line: bytes, path: Path, number: int, *, needs_check: bool) -> Row:
    where = f"{path}, line {number}"
    checked = _CHECKED_LINE.fullmatch(line)
    if checked:
        content, check = checked.groups()
        if check != _line_check(path.name, number, content):
            raise DamageError(f"{where}: is not the row that was written, its check does not fit")
        line = content + b"}"
    elif needs_check:
        raise DamageError(f"{where}: is not the row that was written, it has no check")
    try:
        row = json.loads(line)
        schema_of = row.get
    except (ValueError, AttributeError) as problem:
        raise DamageError(f"{where}: not JSON ({problem}); expected a row") from problem
    check_schema({"schema": schema_of("schema")}, where)
    return row


def to_checked_line(name: str, number: int, row: Mapping[str, Any]) -> bytes:
    """A line whose last key, `check`, binds it to its file and its place, so that lost or moved lines are noticed."""
    content = json.dumps(row).encode()[:-1]
    return content + b', "check": "' + _line_check(name, number, content) + b'"}\n'


def parse_checked_file(path: Path) -> Row:
    """The only row of a small file that `to_checked_line` made with its name."""
    [row] = read_rows(path, RowCount(1, path.stat().st_size))
    return row


def _line_check(name: str, number: int, content: bytes) -> bytes:
    return sha256(f"{name}:{number}:".encode() + content).hexdigest()[:16].encode()


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
