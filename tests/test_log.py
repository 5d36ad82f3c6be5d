"""Tables in the log are what their commands make of the figures that are kept."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench() -> Any:
    """The scripts, which import one another from their own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        return {name: import_module(name) for name in ("learning", "starts", "truth")}


def between(script: Any) -> str:
    log = (ROOT / "docs/log.md").read_text(encoding="utf-8")
    assert log.count(script.BEGIN) == log.count(script.END) == 1
    return log.split(script.BEGIN)[1].split(script.END)[0].strip()


@pytest.mark.parametrize("name", ["learning", "truth"])
def test_the_log_shows_the_figures(name: str, bench: Any):
    script = bench[name]
    assert between(script) == script.table(json.loads(script.RESULTS.read_text(encoding="utf-8")))


def test_the_log_shows_the_gates_of_the_starts_that_ship(bench: Any):
    assert between(bench["starts"]) == bench["starts"].table()
