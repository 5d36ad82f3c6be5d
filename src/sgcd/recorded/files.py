"""Reads recorded rollouts from files: JSON lines one by one, JSON documents and tables as a whole."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from sgcd.errors import DataError

_SUFFIXES = (".jsonl", ".json", ".parquet", ".eval")
_ROW_LISTS = ("simulations", "samples", "rows", "rollouts", "results")
"""Where a document that is no list has its rows: tau2-bench, Inspect, and plain names."""
_TRAJECTORY = frozenset({"messages", "traj", "prompt", "completion", "input"})


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row is: in a file of lines at a byte, in a document by its number from 1."""

    file: Path
    number: int
    offset: int = -1
    """-1 in a document."""

    def __str__(self) -> str:
        return f"{self.file}, {'line' if self.offset >= 0 else 'row'} {self.number}"


def find_recorded_files(paths: Iterable[Path]) -> list[Path]:
    """The files of rollouts; of a folder, all that have a known suffix."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(one for one in path.rglob("*") if one.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not inside or not all(one.is_file() for one in inside):
            raise DataError(
                f"{path}: {'holds no' if path.is_dir() else 'is no'} file of rollouts; expected {', '.join(_SUFFIXES)}"
            )
        files += inside
    return files


class RowFile:
    """One file. A file of lines is never held in memory; `read` seeks the line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shared: Mapping[str, Any] = {}
        """What a document has beside its rows."""
        self._rows: list[Any] | None = None if self._has_lines() else self._load_rows()

    def rows(self) -> Iterator[tuple[RowPlace, Any]]:
        """All rows with their places. A line that is no JSON is given as a `DataError`."""
        if self._rows is not None:
            for number, row in enumerate(self._rows, start=1):
                yield RowPlace(self.path, number), row
            return
        with self._open() as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield RowPlace(self.path, number, offset), _parse_line(line)
                offset += len(line)

    def read(self, place: RowPlace) -> Any:
        if self._rows is not None:
            return self._rows[place.number - 1]
        with self._open() as file:
            file.seek(place.offset)
            return _parse_line(file.readline())

    def _open(self) -> Any:
        try:
            return self.path.open("rb")
        except OSError as problem:
            raise DataError(f"{self.path}: cannot be read ({problem.strerror}); expected rollouts") from problem

    def _has_lines(self) -> bool:
        """JSON lines: the first line is whole, and no list."""
        if self.path.suffix in (".parquet", ".eval"):
            return False
        with self._open() as file:
            first = next((line for line in file if line.strip()), b"")
            has_more = any(line.strip() for line in file)
        parsed = _parse_line(first)
        if isinstance(parsed, dict):
            return has_more or not _TRAJECTORY.isdisjoint(cast("dict[str, Any]", parsed))
        return not first.lstrip().startswith((b"{", b"["))

    def _load_rows(self) -> list[Any]:
        if self.path.suffix == ".parquet":
            return _read_table(self.path)
        document = _read_inspect_archive(self.path) if self.path.suffix == ".eval" else self._load_document()
        if isinstance(document, list):
            return cast("list[Any]", document)
        document = cast("dict[str, Any]", document)
        name = next((name for name in _ROW_LISTS if isinstance(document.get(name), list)), None)
        if name is None:
            return [document]
        self.shared = {key: value for key, value in document.items() if key != name}
        return document[name]

    def _load_document(self) -> Any:
        with self._open() as file:
            try:
                document = json.load(file)
            except (ValueError, RecursionError) as problem:
                raise DataError(
                    f"{self.path}: not JSON ({problem}); expected JSON lines, or one list of rollouts"
                ) from problem
        if not isinstance(document, dict | list):
            raise DataError(f"{self.path}: expected a list of rollouts, got {type(document).__name__}")
        return cast("Any", document)


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as problem:
        return DataError(f"not JSON ({problem})")


def _read_table(path: Path) -> list[Any]:
    """The rows of a table that TRL has written."""
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError as problem:
        raise DataError(
            f"{path}: a table is read with pyarrow, which is not installed; pip install pyarrow, or write it as JSON "
            "lines"
        ) from problem
    try:
        return parquet.read_table(path).to_pylist()
    except (ValueError, OSError) as problem:  # what pyarrow raises of a file is a ValueError too
        raise DataError(f"{path}: no Parquet table can be read there ({str(problem).splitlines()[0]})") from problem


def _read_inspect_archive(path: Path) -> Any:
    """An Inspect log in its own archive: the header, and a file for each sample."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("samples/"))
            header = json.loads(archive.read("header.json"))
            return {**header, "samples": [json.loads(archive.read(name)) for name in names]}
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError) as problem:
        raise DataError(
            f"{path}: cannot be read as a log of Inspect ({problem}); write it as JSON: inspect log dump {path}"
        ) from problem
