"""A benchmark's own package in its own Python, asked line by line, so that its times and ours are taken in turn."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self, cast


class BenchmarkPackage:
    """A script in the environment of `folder`. It reads questions and answers each, a line for a line."""

    def __init__(
        self, folder: Path, script: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> None:
        command = [folder / "bin/python", "-P", script, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        cast(IO[str], self._process.stdin).close()
        self._process.wait()

    def ask(self, question: str = "") -> str:
        """The answer, once it is there."""
        questions, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        questions.write(question + "\n")
        questions.flush()
        return answers.readline()
