"""Tests of the benchmark itself run where `make test-airline` has made its environment."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.benchmarks import find_benchmark
from sgcd.act.environments.airline.description import (
    DESCRIPTION_FILE,
    Domain,
    airline_process,
    load_domain,
    server_variables,
)


@pytest.fixture(scope="session")
def folder() -> Path:
    return find_benchmark("airline", DESCRIPTION_FILE, "tau2-bench", ", with TAU2=DIR_OR_ARCHIVE")


@pytest.fixture(scope="session")
def domain(folder: Path) -> Domain:
    return load_domain(folder, "airline")


@pytest.fixture(scope="session")
def process(folder: Path) -> Any:
    process = airline_process(folder, "airline")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def in_benchmark(folder: Path) -> Any:
    """Run a script of this folder in the benchmark's own Python: JSON in, JSON out."""

    def run(script: str, **request: Any) -> Any:
        done = subprocess.run(
            [folder / "bin/python", "-P", Path(__file__).with_name(script)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", **server_variables(folder)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
