"""Runs `sgcd train` in a process that is forked from one which has imported what all runs need."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

_PROCESSES = multiprocessing.get_context("forkserver")
_IMPORTED_ONCE = ["sgcd.assemble", "sgcd.learn.training.trainer", "transformers.models.qwen3.modeling_qwen3"]
"""Importing these takes longer than ten of the lab's steps."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class FinishedProcess:
    """How a process of `sgcd train` ended, and what it printed."""

    exit_code: int
    output: str
    messages: list[str]
    """The lines of standard error."""


def run_train_process(arguments: Sequence[str], on_message: Callable[[str], None] | None = None) -> FinishedProcess:
    """`sgcd train` with these arguments and one thread; `on_message` gets each line of standard error as it comes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.platform == "linux":  # elsewhere a process may not fork safely once it has imported torch
        _PROCESSES.set_forkserver_preload(_IMPORTED_ONCE)
    with TemporaryDirectory(prefix="sgcd-train-") as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        errors.touch()
        process = _PROCESSES.Process(target=_run_command, args=(["sgcd", "train", *arguments], output, errors))
        process.start()
        messages = list[str]()
        with errors.open(encoding="utf-8", errors="replace") as stream:
            is_alive = True
            while is_alive:
                process.join(_POLL_SECONDS)
                is_alive = process.is_alive()
                for line in _whole_lines(stream, is_last=not is_alive):
                    messages.append(line)
                    if on_message:
                        on_message(line)
        text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        return FinishedProcess(process.exitcode or 0, text, messages)


def _whole_lines(stream: IO[str], *, is_last: bool) -> Iterator[str]:
    """The lines that are there and whole; what follows them is read again, until the process has ended."""
    while True:
        start = stream.tell()
        line = stream.readline()
        if not line or not (line.endswith("\n") or is_last):
            stream.seek(start)
            return
        yield line.rstrip()


def _run_command(words: list[str], output: Path, errors: Path) -> None:
    """In the process: the command `sgcd`, whose standard output and standard error go to files."""
    for stream, path in ((1, output), (2, errors)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.argv = words
    runpy.run_module("sgcd", run_name="__main__")
