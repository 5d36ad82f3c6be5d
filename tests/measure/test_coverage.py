"""Every interval that is printed covers the truth in 95 % of made-up evaluations, and the log says how well."""

import ast
import json
from dataclasses import replace
from importlib import import_module
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONSERVATIVE = {"four trials a task, 8 tasks, p = 0.9", "2 matched seeds, 20 tasks, spread of seeds 0.03"}
"""Few different results are possible there: an eighth of the evaluations have no failure, and seeds often agree."""


@pytest.fixture(scope="module")
def coverage() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        return import_module("write_coverage")


@pytest.fixture(scope="module")
def results(coverage: Any) -> list[dict[str, Any]]:
    return json.loads(coverage.RESULTS.read_text(encoding="utf-8"))


def test_the_log_shows_what_was_simulated(coverage: Any, results: list[dict[str, Any]]):
    text = coverage.LOG_PATH.read_text(encoding="utf-8")
    assert text.split(coverage.BEGIN)[1].split(coverage.END)[0].strip() == coverage.table(results)


def test_every_interval_is_within_93_and_97_percent(coverage: Any, results: list[dict[str, Any]]):
    assert {result["case"] for result in results if not coverage.is_covering(result)} <= CONSERVATIVE
    assert all(result["coverage"] >= 0.925 for result in results)


def test_every_function_that_makes_an_interval_is_simulated(results: list[dict[str, Any]]):
    makers = {
        function.name
        for path in (ROOT / "src").rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Estimate"
        if len(call.args) == 4
    }
    assert makers - {"clip_interval"} <= {result["function"] for result in results}


@pytest.mark.slow
def test_the_intervals_of_today_cover(coverage: Any):
    for case in coverage.all_cases():
        number = case.replications // 10
        result = replace(case, replications=number).simulate()
        slack = 3 * sqrt(0.05 * 0.95 / number)
        least, most = 0.93 - slack, 1 if case.description in CONSERVATIVE else 0.97 + slack
        assert least <= result["coverage"] <= most, result
