"""Cache of answers in an SQLite file; the key is the hash of the whole request."""

import sqlite3
import time
from pathlib import Path

from sgcd.errors import EndpointError

_CACHE_SCHEMA = 1
_LOCK_TIMEOUT_SECONDS = 5.0
"""How long to wait for another process that writes."""


class CompletionCache:
    """Each answer is one transaction, so a killed process leaves it whole or absent; processes can share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Open the file, or create it. Raises EndpointError if it is no cache."""
        if self._connection is None:
            if not self.path.parent.is_dir():
                raise EndpointError(f"{self.path}: the cache's folder does not exist; make it, or name another file")
            try:
                self._connection = self._connect()
            except sqlite3.Error as problem:
                raise EndpointError(
                    f"{self.path}: not a cache of answers ({problem}); remove the file, or name another one"
                ) from problem
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        [version] = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for [name] in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version not in (0, _CACHE_SCHEMA) or (version == 0 and tables - {"answers"}):
            raise sqlite3.DatabaseError(f"schema {version}, expected {_CACHE_SCHEMA}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT NOT NULL, made REAL NOT NULL)"
        )
        connection.execute(f"PRAGMA user_version = {_CACHE_SCHEMA}")
        return connection

    def get(self, request_hash: str) -> str | None:
        row = self.open().execute("SELECT answer FROM answers WHERE request = ?", [request_hash]).fetchone()
        return None if row is None else str(row[0])

    def put(self, request_hash: str, answer: str) -> None:
        self.open().execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", [request_hash, answer, time.time()])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
