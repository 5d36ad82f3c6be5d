"""Every call of the 200 recorded rollouts goes through our environment; why answers differ is known for each."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from sgcd.act.environments.benchmark_process import BenchmarkProcess

pytestmark = pytest.mark.slow
RECORDS = Path(__file__).parents[3] / "shared/data/tau_bench_gpt4o/gpt-4o-airline.json"


@pytest.mark.skipif(
    not RECORDS.is_file(), reason=f"{RECORDS} is not here: GPT-4o's rollouts, which sgcd does not contain"
)
async def test_answers_agree_but_for_what_was_corrected_since(
    process: BenchmarkProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench/airline"))
    rollouts = json.loads(RECORDS.read_text(encoding="utf-8"))
    found = await import_module("replay_gpt4o").replay(rollouts, process)
    assert (len(rollouts), found.total()) == (200, 1164)
    assert sum(times for kind, times in found.items() if kind.startswith("agrees")) == 1004
    assert {kind.removeprefix("differs: "): times for kind, times in found.items() if kind.startswith("differs")} == {
        "the tool think was removed": 92,
        "a change of cabin was answered and not written (corrected since)": 57,
        "search_onestop_flight": 7,
        "list_all_airports": 2,
        "cancel_reservation": 1,
        "get_reservation_details": 1,
    }
