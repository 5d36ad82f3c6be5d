"""Tests of the benchmark itself run where `make test-bfcl` has made its environment."""

from pathlib import Path
from typing import Any

import pytest

from sgcd.act.environments.bfcl.description import BFCL_DESCRIPTION, BfclTask, bfcl_process, load_bfcl

FOLDER = Path(__file__).parents[2] / ".venv-bfcl"


@pytest.fixture(scope="session")
def folder() -> Path:
    if not (FOLDER / BFCL_DESCRIPTION).is_file():
        pytest.skip("BFCL is not installed: make test-bfcl")
    return FOLDER


@pytest.fixture(scope="session")
def tasks(folder: Path) -> dict[str, BfclTask]:
    return load_bfcl(folder)


@pytest.fixture(scope="session")
def process(folder: Path) -> Any:
    process = bfcl_process(folder)
    yield process
    process.stop()
