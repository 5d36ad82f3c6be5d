"""A table of completions, written as TRL's trainer writes it, is read as recorded rollouts."""

from pathlib import Path
from typing import Any

import pytest

from sgcd.recorded.groups import index_rollouts

pandas: Any = pytest.importorskip("pandas", reason="`make integration` runs tests/peers in .venv-trl, which has pandas")
pytest.importorskip("pyarrow", reason="`make integration` runs tests/peers in .venv-trl, which has pyarrow")


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    native = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [native]}


@pytest.mark.slow
def test_a_table_with_calls_keeps_each_calls_own_arguments(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "two seats"}]
    completions = [
        [call("look", {"day": "may"}), {"role": "tool", "name": "look", "content": "free"}, call("book", {"seats": 2})],
        [call("book", {"seats": 3}), {"role": "tool", "name": "book", "content": "booked"}],
    ]
    table = {"step": [4, 4], "prompt": [prompt] * 2, "completion": completions, "right": [1.0, 0.0],
             "short": [0.5, 0.5], "advantage": [0.7, -0.7]}  # fmt: skip
    pandas.DataFrame(table).to_parquet(tmp_path / "completions_00004.parquet")
    index = index_rollouts([tmp_path / "completions_00004.parquet"])
    [siblings] = index.mixed(0)
    assert list(siblings.rewards) == [1.5, 0.5]
    _, first = index.read(siblings, 0)
    functions = [one["function"] for message in first.messages for one in message.get("tool_calls") or ()]
    assert functions == [{"name": "look", "arguments": {"day": "may"}}, {"name": "book", "arguments": {"seats": 2}}]
