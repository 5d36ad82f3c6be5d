"""Every method trains, is stopped, and ends with the same bytes as if it had not been."""

from pathlib import Path
from typing import get_args

import pytest

from helpers.tiny_policy import Watcher
from helpers.training_runs import policy, train
from sgcd.credit.settings import MethodSettings, OwnMethodSettings

NAMES = [
    get_args(settings.model_fields["name"].annotation)[0]
    for settings in get_args(get_args(MethodSettings)[0])
    if settings is not OwnMethodSettings
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path: Path, name: str) -> None:
    watcher = Watcher()
    train(tmp_path / "whole", watcher, steps=3, method={"name": name}, checkpoint={"every": 1})
    assert sum(row.loss is not None for row in watcher.rows) >= 2
    train(tmp_path / "stopped", steps=2, method={"name": name}, checkpoint={"every": 1})
    train(tmp_path / "stopped", steps=3, method={"name": name}, checkpoint={"every": 1})
    assert policy(tmp_path / "whole") == policy(tmp_path / "stopped")
