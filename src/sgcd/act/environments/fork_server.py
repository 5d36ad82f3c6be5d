"""Serves episodes of a benchmark over a socket. Runs in the benchmark's own Python, without sgcd.

    python fork_server.py SCRIPT CLASS SOCKET ARGUMENT...

CLASS of SCRIPT is made once, with the arguments. The process forks a child for each connection, which is one episode
with a state of its own. Requests and answers are JSON, one a line. The process ends when its standard input does, and a
child when its connection does.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Protocol, TypeVar

CALL_SECONDS = 2.0
"""Processor time that one call of the policy may take before it is answered with an error."""
HANG_SECONDS = 30
"""After this much processor time in one call, a child that does not even react to its timer ends."""
CALL_BYTES = 2**30
"""Memory that an episode may take beyond what the loaded benchmark has."""
MAX_CONNECTIONS = 1024

_Json = dict[str, Any]
_Result = TypeVar("_Result")
_RunLimited = Callable[[Callable[[], Any]], Any]


class ServedEpisode(Protocol):
    """One play of one task."""

    def answer(self, request: _Json) -> _Json: ...


class ServedBenchmark(Protocol):
    """What is loaded once. An episode runs the policy's calls by the function that it gets."""

    def open_episode(self, run_limited: _RunLimited) -> ServedEpisode: ...


class _OutOfTime(BaseException):
    """Raised in the call, past whatever catches its exceptions."""


def run_limited(function: Callable[[], _Result]) -> _Result:
    """What the function returns, or `TimeoutError` when it takes too long."""
    last_second = int(time.process_time()) + HANG_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (last_second, resource.RLIM_INFINITY))  # the kernel ends the process there
    signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)
    try:
        return function()
    except _OutOfTime:
        raise TimeoutError(f"the call took more than {CALL_SECONDS:g} seconds of processor time") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def stop_call(number: int, frame: FrameType | None) -> None:
    raise _OutOfTime


def serve_episode(benchmark: ServedBenchmark, connection: socket.socket) -> None:
    """Answer the requests of one connection until it ends."""
    signal.signal(signal.SIGPROF, stop_call)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory()
    episode = benchmark.open_episode(run_limited)
    with connection.makefile("rwb") as lines:
        for line in lines:
            try:
                answer = episode.answer(json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            lines.write(json.dumps(answer).encode() + b"\n")
            lines.flush()


def limit_memory() -> None:
    """Let this process take `CALL_BYTES` more than it has. Where its size is unknown there is no limit."""
    with suppress(OSError, ValueError):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + CALL_BYTES, resource.RLIM_INFINITY))


def serve(benchmark: ServedBenchmark, listener: socket.socket) -> None:
    """Fork a child for each connection, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended leave nothing
    gc.collect()
    gc.freeze()  # a collection in a child would copy pages that it only reads
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            try:
                listener.close()
                os.close(sys.stdin.fileno())
                serve_episode(benchmark, connection)
            except (BrokenPipeError, ConnectionResetError):
                pass  # nobody waits for the answer
            finally:
                os._exit(0)
        connection.close()


def import_script(path: Path) -> ModuleType:
    """Import a file that is on no path."""
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no script of Python")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_server(script: str, class_name: str, path: str, *arguments: str) -> None:
    benchmark: ServedBenchmark = getattr(import_script(Path(script)), class_name)(*arguments)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(MAX_CONNECTIONS)
        print("ready", flush=True)
        serve(benchmark, listener)


if __name__ == "__main__":
    run_server(*sys.argv[1:])
