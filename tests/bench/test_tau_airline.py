"""The script that compares points of deviation with gold actions, on two attempts that are written out."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from helpers.group import LAB

GOLD = [{"name": "book", "kwargs": {"flight": "F1", "bags": 2}}]


def row(reward: float, *calls: tuple[str, dict[str, Any]], failed: bool = False) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "F1 with 2 bags, not 3"}]
    for number, (name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append(
            {"role": "assistant", "content": None, "tool_calls": [{"id": str(number), "function": function}]}
        )
        content = "Error: no" if failed else "ok"
        messages.append({"role": "tool", "tool_call_id": str(number), "content": content})
    messages.append({"role": "assistant", "content": "Done."})
    return {"task_id": 0, "reward": reward, "traj": messages, "info": {"task": {"actions": GOLD}}}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench/references"))
    return import_module("tau_airline")


def test_a_point_hits_where_the_failure_differs_from_gold(script: Any) -> None:
    rows = [row(1.0, ("book", {"flight": "F1", "bags": 2})), row(0.0, ("book", {"flight": "F1", "bags": 3}))]
    assert script.find_differences(rows) == {("book", "bags")}
    points = script.find_points(script.build_traces(script.read_rollouts(rows), script.Literals({}), LAB))
    assert script.names_first(points, {("book", "bags")})
    assert not script.names_first(points, {("book", "flight")})


def test_differences_are_calls_left_out_extra_changes_and_no_extra_reading(script: Any) -> None:
    calls = [("get_user", {}), ("cancel", {}), ("cancel", {})]
    assert script.find_differences([row(0.0, *calls)]) == {("book", ""), ("cancel", "")}
    assert script.find_differences([row(1.0, *calls)]) == set()
    assert script.find_differences([row(0.0, ("cancel", {}), failed=True)]) == {("book", "")}
