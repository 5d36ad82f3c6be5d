"""Each name of TRL that the recipe understands is an argument of the TRL that is pinned."""

import inspect
from dataclasses import fields
from typing import Any

import pytest

from sgcd.recipe.aliases import TRL_KEYS

trl: Any = pytest.importorskip(
    "trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl"
)


@pytest.mark.slow
def test_every_name_exists_in_trl() -> None:
    known = {field.name for field in fields(trl.GRPOConfig)}
    known |= set(inspect.signature(trl.GRPOTrainer.__init__).parameters)
    assert set(TRL_KEYS) <= known, set(TRL_KEYS) - known
