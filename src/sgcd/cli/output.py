"""Prints results on standard output, as tables or one JSON object, and everything else on standard error."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from re import match
from typing import Any

from rich.console import Console

_TABLE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""


def results_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH, highlight=False, markup=False, emoji=False)


def progress_console() -> Console:
    """Standard error, so that a pipe gets results only."""
    width = None if sys.stderr.isatty() else _TABLE_WIDTH
    return Console(stderr=True, width=width, highlight=False, markup=False, emoji=False)


class ProgressHandler(logging.Handler):
    """Prints each warning of the package once, as one line of progress."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            progress_console().print(message, soft_wrap=True)


def print_json(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer, ensure_ascii=False))


def split_recipe_and_keys(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The recipe's file, if the first word is no key=value, and the other words."""
    if words and not match(r"[\w.]+=", words[0]):
        return Path(words[0]), list(words[1:])
    return None, list(words)
