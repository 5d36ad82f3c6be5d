"""Every method trains, is stopped, and ends with the same bytes as if it had not been."""

from pathlib import Path
from typing import get_args

import pytest

from helpers.tiny_policy import Watcher
from helpers.training_runs import policy, train
from sgcd.credit.settings import MethodSettings, OwnMethodSettings
from sgcd.show.plots.curves import credit_curves

NAMES = [
    get_args(settings.model_fields["name"].annotation)[0]
    for settings in get_args(get_args(MethodSettings)[0])
    if settings is not OwnMethodSettings
]


@pytest.mark.slow
def test_weights_without_a_teacher_are_counted_by_place(tmp_path: Path) -> None:
    watcher = Watcher()
    train(tmp_path / "run", watcher, steps=1, method={"name": "surprisal"})
    credit = watcher.rows[0].credit
    assert credit is not None and credit.weighs and not credit.scored and not credit.reasons
    assert 0 < credit.credited <= credit.creditable <= credit.tokens
    assert credit.weight.mean is not None and 1 < credit.weight.mean <= 2 and credit.weight.histogram is not None
    assert sum(share.credit or 0 for place, share in credit.where.items() if place != "first") == pytest.approx(1)
    assert credit.divergence.mean is None and not watcher.rows[0].invalid
    assert {"Mean weight", "Where credit falls"} <= {title for title, _, _ in credit_curves(watcher.rows)}
    train(tmp_path / "grpo", watcher, steps=1, method={"name": "grpo"})
    assert watcher.rows[-1].credit is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path: Path, name: str) -> None:
    watcher = Watcher()
    train(tmp_path / "whole", watcher, steps=3, method={"name": name}, checkpoint={"every": 1})
    assert sum(row.loss is not None for row in watcher.rows) >= 2
    train(tmp_path / "stopped", steps=2, method={"name": name}, checkpoint={"every": 1})
    train(tmp_path / "stopped", steps=3, method={"name": name}, checkpoint={"every": 1})
    assert policy(tmp_path / "whole") == policy(tmp_path / "stopped")
