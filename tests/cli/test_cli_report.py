"""sgcd report as it is typed; what the page shows is tested in the show room."""

import pytest

from sgcd.cli import expand_multi_value_options, main


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Usage: sgcd report")
    assert "--step N ..." in said


def test_steps_are_listed_and_another_option_ends_the_list() -> None:
    assert expand_multi_value_options(["report", "run", "--step", "1", "5", "--out", "a.html"]) == [
        *("report", "run", "--step", "1", "--step", "5", "--out", "a.html")
    ]
    assert expand_multi_value_options(["compare", "a", "--against", "b", "c", "--split", "dev"]) == [
        *("compare", "a", "--against", "b", "--against", "c", "--split", "dev")
    ]
