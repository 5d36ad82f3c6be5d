"""Tests of AppWorld itself run where `make test-appworld` has made its environment; its data they build themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.appworld_plays import Servers, run_python
from helpers.benchmarks import borrow_environment
from sgcd.act.environments.appworld.description import VERDICTS_ROOT, WORLDS_ROOT, appworld_process
from sgcd.act.environments.appworld.setup import is_installed, set_up_appworld

FOLDER = Path(__file__).parents[2] / ".venv-appworld"
SIZES = {"train": 6, "dev": 3, "test_normal": 6, "test_challenge": 0}
CODE_SECONDS = 3


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sgcd setup appworld --data` makes of data with six tasks of our own, over the installed package."""
    if not is_installed(FOLDER):
        pytest.skip("AppWorld is not installed: make test-appworld")
    home = borrow_environment(FOLDER, tmp_path_factory.mktemp("appworld") / "home")
    root = home / "official"
    root.mkdir()
    run_python(home, "build_root.py", root)
    found = set_up_appworld(home, root / "data", lambda line: None, SIZES)
    assert found["splits"] == SIZES
    return home


@pytest.fixture(scope="session")
def servers(folder: Path) -> Iterator[Servers]:
    worlds, verdicts = (appworld_process(folder, root, CODE_SECONDS) for root in (WORLDS_ROOT, VERDICTS_ROOT))
    yield Servers(worlds, verdicts)
    worlds.stop()
    verdicts.stop()
