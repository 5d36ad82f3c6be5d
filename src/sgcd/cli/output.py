"""How a verb answers: results on standard output, as tables or one JSON object; all else on standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from re import match
from typing import Any

from rich.console import Console

_TABLE_WIDTH = 120
"""Columns of a table that nobody looks at in a terminal."""


def results_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH, highlight=False, markup=False, emoji=False)


def progress_console() -> Console:
    """For all that is no result: standard error, so that results can be piped."""
    width = None if sys.stderr.isatty() else _TABLE_WIDTH
    return Console(stderr=True, width=width, highlight=False, markup=False, emoji=False)


def print_json(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer, ensure_ascii=False))


def split_recipe_and_keys(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """A recipe's file, when the first word is no key=value, and the rest."""
    if words and not match(r"[\w.]+=", words[0]):
        return Path(words[0]), list(words[1:])
    return None, list(words)
