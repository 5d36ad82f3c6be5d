"""The script behind docs/case-airline.md: its page is as its figures have it, and its measures by hand."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from helpers.recorded import MIXED, write_lines
from sgcd.cli import main

ROOT = Path(__file__).parents[2]
GOLD = [{"name": "look", "kwargs": {}}, {"name": "book", "kwargs": {"seats": 3, "cabin": "economy"}}]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench/references"))
    return import_module("case_airline")


def test_the_page_is_as_the_figures_have_it(script: Any) -> None:
    page = (ROOT / "docs/case-airline.md").read_text(encoding="utf-8")
    assert script.render(page) == page
    assert "<!-- generated: figures -->\n| what" in page


def test_measures_of_a_task_by_hand(script: Any, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", MIXED)
    assert main(["credit", str(file), "--no-score", "--out", str(tmp_path / "A")]) == 0
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps([{"task_id": "t1", "info": {"task": {"actions": GOLD}}}]))
    [case] = script.read_cases(gold, tmp_path / "A")
    assert case.lacking() == [*GOLD]  # no failure looks, none books three seats
    assert case.right_tools() == {"look", "book"}
    assert script.names_lacking(case, case)
    assert script.credited_share(case, of_success=True) == (1.0, 1.0)  # success 0 parts where it looks and books
    assert script.credited_share(case, of_success=False) == (1.0, 1.0)  # both failures book at their only call
