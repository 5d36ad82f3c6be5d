"""The tables of docs/results.md are those of its script, and its arithmetic is that of the tests that it plans."""

from importlib import import_module
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return import_module("write_results")


def test_the_page_shows_the_tables(script: Any) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    for name, table in script.tables().items():
        begin, end = script.markers(name)
        assert text.split(begin)[1].split(end)[0].strip() == table


@given(st.floats(0.05, 0.95), st.floats(0.02, 0.3))
def test_so_many_trials_find_the_difference_four_times_in_five(script: Any, first: float, gap: float) -> None:
    second = first - gap if first > 0.5 else first + gap
    trials = script.trials_needed(first, second)
    power = {
        count: 1 - NormalDist(gap / script.standard_error(first, second, count)).cdf(NormalDist().inv_cdf(0.975))
        for count in (trials, max(1, trials - 1))
    }
    assert power[trials] > 0.8 - 1e-5
    assert trials == 1 or power[trials - 1] < 0.8 + 1e-5
