"""The benchmark against TRL runs from end to end, and what it leaves can be shown."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not in this environment; `make integration` runs tests/peers in .venv-trl")
BENCH = Path(__file__).parents[2] / "bench"


def test_it_runs_and_every_case_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "peers.json"
    command = [sys.executable, BENCH / "peers.py", "--tiny", "--json", kept]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    answer = json.loads(kept.read_text(encoding="utf-8"))
    cases = answer["B6"]["cases"]
    assert len(cases) == 12
    assert all(case["figure"] > 0 for case in cases)
    [size] = answer["sizes"]
    assert min(size["bytes"].values()) > 1e6
    assert len(size["seconds"]) == 7
    monkeypatch.syspath_prepend(str(BENCH))
    lines = import_module("performance_table").section("B6", import_module("performance_table").peers_section(answer))
    assert sum("written tokens a rollout" in line for line in lines) == 12
    assert sum(line.startswith("| TRL's SDPO, top-K, vocabulary 500") for line in "\n".join(lines).splitlines()) == 1
