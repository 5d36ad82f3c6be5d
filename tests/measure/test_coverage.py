"""The page of coverages is what its figures say, and a fresh simulation agrees with it."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("write_coverage", None)
    return import_module("write_coverage")


def test_the_page_is_built_from_its_figures(coverage: ModuleType) -> None:
    result = json.loads((DOCS / "coverage.json").read_text())
    assert coverage.build_table(result) == (DOCS / "log" / "coverage.md").read_text()
    cases = [(name, setting) for name, setting, *_ in coverage.list_cases()]
    assert cases == [(row["interval"], row["setting"]) for row in result["rows"]]


def test_few_draws_of_each_interval_agree_with_the_page(coverage: ModuleType) -> None:
    result = json.loads((DOCS / "coverage.json").read_text())
    for (name, setting, draw, _), row in zip(coverage.list_cases(), result["rows"], strict=True):
        assert abs(coverage.simulate_coverage(draw, 60, seed=1) - row["coverage"]) < 0.13, (name, setting)


@pytest.mark.slow
def test_no_interval_is_narrow_where_the_page_says_pass(coverage: ModuleType) -> None:
    result = json.loads((DOCS / "coverage.json").read_text())
    for (name, setting, draw, _), row in zip(coverage.list_cases(), result["rows"], strict=True):
        if row["coverage"] >= 0.94:
            assert coverage.simulate_coverage(draw, 800, seed=2) > 0.92, (name, setting)
