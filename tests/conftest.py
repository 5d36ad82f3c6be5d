"""What every test stands on: one thread, and nothing asked of the network."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

try:
    import torch
except ModuleNotFoundError:
    pass
else:
    torch.set_num_threads(1)
    if not torch.cuda.is_available():  # before anything imports triton: its kernels are run line by line, on the CPU
        os.environ.setdefault("TRITON_INTERPRET", "1")

sys.path.append(str(Path(__file__).parent))  # for the package `helpers`

collect_ignore = [] if find_spec("trl") else ["peers"]  # `make integration` runs these where TRL is, in .venv-trl


@pytest.fixture(scope="session")
def built_desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers import desk

    return desk.build(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def at_desk(built_desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that the smallest run takes: policy/, front.py, train.jsonl, dev.jsonl, recipe.yaml. We stand in it."""
    here = tmp_path / "desk"
    shutil.copytree(built_desk, here)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """We stand in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all pages; skips the test where there is none."""
    from helpers.browser import PROGRAM, browser

    if PROGRAM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened
