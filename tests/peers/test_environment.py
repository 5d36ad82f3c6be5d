"""The environment that peers are compared in is the one that was pinned."""

from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
PINNED = Path(__file__).parents[2] / "constraints-trl.txt"


def test_trl_is_the_one_that_was_pinned() -> None:
    assert f"trl=={version('trl')}" in PINNED.read_text(encoding="utf-8").splitlines()


def test_torch_and_transformers_are_the_projects_own() -> None:
    pinned = (PINNED.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in ("torch", "transformers", "tokenizers"):
        assert f"{name}=={version(name).partition('+')[0]}" in pinned
