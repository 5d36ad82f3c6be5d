"""Tests of the games run where `make test-textworld` has made them."""

from pathlib import Path
from typing import Any

import pytest

from sgcd.act.environments.textworld import GAMES_FILE, textworld_process

FOLDER = Path(__file__).parents[2] / ".venv-textworld"


@pytest.fixture(scope="session")
def folder() -> Path:
    if not (FOLDER / GAMES_FILE).is_file():
        pytest.skip("TextWorld is not installed: make test-textworld")
    return FOLDER


@pytest.fixture(scope="session")
def process(folder: Path) -> Any:
    process = textworld_process(folder)
    yield process
    process.stop()
