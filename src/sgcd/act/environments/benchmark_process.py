"""Starts a benchmark's server in the benchmark's own environment of Python, and opens an episode for each rollout."""

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import IO, Any, cast

from sgcd.errors import EnvironmentFault

_FORK_SERVER = Path(__file__).with_name("fork_server.py")
_CHUNK_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """How a benchmark's server starts."""

    folder: Path
    """The benchmark's environment of Python."""
    script: Path
    class_name: str
    """The class in the script that `fork_server.py` serves."""
    setup: str
    """The command that makes the folder."""
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    reuses_episodes: bool = False
    """Whether the process of an episode that has ended may play another one, which begins with a request of its own."""


class BenchmarkProcess:
    """The server of a benchmark. It starts with the first episode and ends with this program."""

    def __init__(self, command: ServerCommand) -> None:
        self._command = command
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._socket = ""
        self._idle: list[EpisodeClient] = []

    async def open_episode(self) -> "EpisodeClient":
        """A connection, which has a state of its own."""
        if self._idle:
            return self._idle.pop()
        process = await asyncio.to_thread(self._start_unless_running, None)
        try:
            connection = await connect(self._socket)
        except ConnectionError:  # it is ending at this moment
            await asyncio.to_thread(self._start_unless_running, process)
            connection = await connect(self._socket)
        return EpisodeClient(connection, self._idle if self._command.reuses_episodes else None)

    def stop(self) -> None:
        """End the server; episodes in progress go on to their ends."""
        with self._lock:
            if self._process:
                self._finalizer()

    def _start_unless_running(self, ending: "subprocess.Popen[str] | None") -> "subprocess.Popen[str]":
        """Start the server where none runs, or the one that runs is `ending`."""
        with self._lock:
            if self._process is ending or self._process is None or self._process.poll() is not None:
                self._process = self._start()
            return self._process

    def _start(self) -> "subprocess.Popen[str]":
        command = self._command
        home = Path(tempfile.mkdtemp(prefix="sgcd-server-"))  # short: the path of a socket has about a hundred letters
        self._socket = str(home / "socket")
        with (home / "log").open("w") as log:
            arguments = [command.script, command.class_name, self._socket, *command.arguments]
            process = subprocess.Popen(
                [command.folder / "bin/python", "-P", _FORK_SERVER, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **command.variables},
            )
        self._finalizer = weakref.finalize(self, _end_process, process, home, self._idle)
        if cast(IO[str], process.stdout).readline().strip() != "ready":
            last_line = ((home / "log").read_text().strip().splitlines() or ["it said nothing"])[-1]
            self._finalizer()
            raise EnvironmentFault(
                f"environment.folder: {command.folder}: the benchmark does not start: {last_line}; make it anew: "
                f"{command.setup}"
            )
        return process


def _end_process(process: "subprocess.Popen[str]", home: Path, idle: "list[EpisodeClient]") -> None:
    while idle:
        idle.pop().disconnect()
    cast(IO[str], process.stdin).close()
    cast(IO[str], process.stdout).close()
    process.terminate()
    process.wait()
    rmtree(home, ignore_errors=True)


async def connect(path: str) -> socket.socket:
    """A connection to the server, which outlives the event loop."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


class EpisodeClient:
    """One conversation in the benchmark's process."""

    def __init__(self, connection: socket.socket, idle: "list[EpisodeClient] | None" = None) -> None:
        self._connection = connection
        self._idle = idle
        self._is_waiting = False
        """Whether an answer is due; it stays so when the wait is cancelled or the process ends."""

    async def request(self, kind: str, **parts: Any) -> Mapping[str, Any]:
        """Send one request and return its answer. An episode whose process has ended breaks its rollout."""
        loop = asyncio.get_running_loop()
        self._is_waiting = True
        with suppress(ConnectionError):
            await loop.sock_sendall(self._connection, json.dumps({"request": kind, **parts}).encode() + b"\n")
            chunks = list[bytes]()
            while chunk := await loop.sock_recv(self._connection, _CHUNK_BYTES):
                chunks.append(chunk)
                if chunk.endswith(b"\n"):
                    self._is_waiting = False
                    return _read_answer(kind, b"".join(chunks))
        raise RuntimeError(f"the benchmark's process ended during {kind}")

    async def close(self) -> None:
        """End the episode. Its process is kept for another where that is possible."""
        if self._idle is None or self._is_waiting:
            self.disconnect()
        else:
            self._idle.append(self)

    def disconnect(self) -> None:
        """End the episode's process."""
        self._connection.close()


def _read_answer(kind: str, line: bytes) -> Mapping[str, Any]:
    answer = json.loads(line)
    if "error" in answer:
        raise RuntimeError(f"the benchmark failed in {kind}: {answer['error']}")
    return answer
