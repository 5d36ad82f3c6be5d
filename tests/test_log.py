"""Tables in the log, and the page of performance, are what their commands make of the figures that are kept."""

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
        return {name: import_module(name) for name in ("learning", "performance", "starts", "truth")}


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


def test_the_page_of_performance_shows_the_figures(bench: Any):
    script = bench["performance"]
    result = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert script.PAGE.read_text(encoding="utf-8") == script.page(result)
    assert {f"B{number}" for number in (1, 2, 3, 4, 5, 7)} <= result.keys()


def test_what_was_not_measured_or_not_reached_is_said_so(bench: Any):
    cases = [
        {"name": "a", "figure": None, "target": 1.35, "least": False, "pass": None},
        {"name": "b", "figure": 1.5, "target": 1.25, "least": False, "pass": False},
        {"name": "c", "figure": 46.1, "target": 50, "least": True, "pass": True},
    ]
    told = bench["performance"].section("B0", {"title": "what it is", "cases": cases, "note": "so"})
    assert told[4:] == [
        "| a | not measured | at most 1.35 |  |",
        "| b | 1.5 | at most 1.25 | **fail** |",
        "| c | 46.1 | at least 50 | pass |",
        "",
        "so",
        "",
    ]
