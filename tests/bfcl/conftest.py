"""Tests of the benchmark itself run where `make test-bfcl` has made its environment."""

from pathlib import Path
from typing import Any

import pytest

from helpers.benchmarks import find_benchmark
from sgcd.act.environments.bfcl.description import BFCL_DESCRIPTION, BfclTask, bfcl_process, load_bfcl


@pytest.fixture(scope="session")
def folder() -> Path:
    return find_benchmark("bfcl", BFCL_DESCRIPTION, "BFCL")


@pytest.fixture(scope="session")
def tasks(folder: Path) -> dict[str, BfclTask]:
    return load_bfcl(folder)


@pytest.fixture(scope="session")
def process(folder: Path) -> Any:
    process = bfcl_process(folder)
    yield process
    process.stop()
