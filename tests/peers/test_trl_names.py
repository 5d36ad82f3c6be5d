"""Each name of TRL that the recipe understands is an argument of the TRL that is pinned."""

import inspect
from dataclasses import fields

import pytest

from sgcd.recipe.aliases import TRL_KEYS

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")


@pytest.mark.slow
def test_every_name_exists_in_trl() -> None:
    from trl import GRPOConfig, GRPOTrainer

    known = {field.name for field in fields(GRPOConfig)} | set(inspect.signature(GRPOTrainer.__init__).parameters)
    assert set(TRL_KEYS) <= known, set(TRL_KEYS) - known
