"""Answers remembered in a file, by the whole request: asked again, a question costs nothing."""

import sqlite3
import time
from pathlib import Path

from sgcd.errors import EndpointError

SCHEMA = 1
PATIENCE = 5.0
"""Seconds in which another process may finish writing."""


class Cache:
    """Each answer is one transaction: whole or absent when the process is killed, and others may use the file too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Made when it is not there; refused when it is something else."""
        if self._file is None:
            if not self.path.parent.is_dir():
                raise EndpointError(f"{self.path}: the cache's folder does not exist; make it, or name another file")
            try:
                self._file = self._opened()
            except sqlite3.Error as problem:
                raise EndpointError(
                    f"{self.path}: not a cache of answers ({problem}); remove the file, or name another one"
                ) from problem
        return self._file

    def _opened(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")
        [version] = file.execute("PRAGMA user_version").fetchone()
        known = {name for [name] in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version not in (0, SCHEMA) or (version == 0 and known - {"answers"}):
            raise sqlite3.DatabaseError(f"schema {version}, expected {SCHEMA}")
        file.execute(
            "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT NOT NULL, made REAL NOT NULL)"
        )
        file.execute(f"PRAGMA user_version = {SCHEMA}")
        return file

    def get(self, request: str) -> str | None:
        found = self.open().execute("SELECT answer FROM answers WHERE request = ?", [request]).fetchone()
        return None if found is None else str(found[0])

    def put(self, request: str, answer: str) -> None:
        self.open().execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", [request, answer, time.time()])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
