"""Tests of the games run where `make test-textworld` has made them."""

from pathlib import Path
from typing import Any

import pytest

from helpers.benchmarks import find_benchmark
from sgcd.act.environments.textworld import GAMES_FILE, textworld_process


@pytest.fixture(scope="session")
def folder() -> Path:
    return find_benchmark("textworld", GAMES_FILE, "TextWorld")


@pytest.fixture(scope="session")
def process(folder: Path) -> Any:
    process = textworld_process(folder)
    yield process
    process.stop()
