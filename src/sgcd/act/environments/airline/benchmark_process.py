"""Starts the benchmark's server in the benchmark's own environment, and opens an episode for each rollout."""

import asyncio
import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import IO, Any, cast

from sgcd.errors import EnvironmentFault

_SERVER = Path(__file__).with_name("benchmark_server.py")
_MAX_LINE_BYTES = 2**26
"""The longest answer of the server: the description of all tasks."""


class BenchmarkProcess:
    """The server of one domain. It starts with the first episode and ends with this program."""

    def __init__(self, folder: Path, domain: str) -> None:
        self._folder = folder
        self._domain = domain
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._socket = ""

    async def open_episode(self) -> "EpisodeClient":
        """A connection, which has a database of its own."""
        await asyncio.to_thread(self._ensure_started)
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=_MAX_LINE_BYTES)
        return EpisodeClient(reader, writer)

    def stop(self) -> None:
        """End the server; episodes in progress go on to their ends."""
        with self._lock:
            if self._process:
                self._finalizer()

    def _ensure_started(self) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def _start(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="sgcd-airline-"))  # short: the path of a socket has about a hundred letters
        self._socket = str(home / "socket")
        with (home / "log").open("w") as log:
            process = subprocess.Popen(
                [self._folder / "bin/python", "-P", _SERVER, self._domain, self._socket],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **server_environment(self._folder)},
            )
        self._finalizer = weakref.finalize(self, _end_process, process, home)
        if cast(IO[str], process.stdout).readline().strip() != "ready":
            last_line = ((home / "log").read_text().strip().splitlines() or ["it said nothing"])[-1]
            self._finalizer()
            raise EnvironmentFault(
                f"environment.folder: {self._folder}: the benchmark does not start: {last_line}; make it anew: "
                f"sgcd setup airline --from DIR_OR_ARCHIVE --folder {self._folder}"
            )
        self._process = process


def server_environment(folder: Path) -> dict[str, str]:
    """Variables for the benchmark's Python: its own source before any package of that name; no network at import."""
    return {
        "PYTHONPATH": str(folder.resolve() / "tau2-bench/src"),
        "TAU2_DATA_DIR": str(folder.resolve() / "tau2-bench/data"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _end_process(process: "subprocess.Popen[str]", home: Path) -> None:
    cast(IO[str], process.stdin).close()
    cast(IO[str], process.stdout).close()
    process.terminate()
    process.wait()
    rmtree(home, ignore_errors=True)


class EpisodeClient:
    """One conversation in the benchmark's process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self, kind: str, **parts: Any) -> Mapping[str, Any]:
        """Send one request and return its answer. An episode whose process has ended breaks its rollout."""
        self._writer.write(json.dumps({"request": kind, **parts}).encode() + b"\n")
        with suppress(ConnectionError):
            await self._writer.drain()
            if line := await self._reader.readline():
                return _read_answer(kind, line)
        raise RuntimeError(f"the benchmark's process ended during {kind}")

    async def close(self) -> None:
        self._writer.close()


def _read_answer(kind: str, line: bytes) -> Mapping[str, Any]:
    answer = json.loads(line)
    if "error" in answer:
        raise RuntimeError(f"the benchmark failed in {kind}: {answer['error']}")
    return answer
