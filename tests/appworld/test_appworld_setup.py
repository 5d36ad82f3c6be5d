"""Every refusal of `sgcd setup appworld`, and of a recipe whose benchmark is missing; without AppWorld."""

import json
from pathlib import Path

import pytest

from helpers.benchmarks import EVALUATE, Capture, check_that_other_folders_are_refused, refused, write_recipe
from sgcd.act.environments.appworld.setup import OFFICIAL_APIS, OFFICIAL_SIZES, check_sizes
from sgcd.errors import EnvironmentFault

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def make_data(*, with_truth: bool) -> None:
    for part in ("datasets", "base_dbs", "api_docs/standard", "tasks/a_1/ground_truth"):
        Path("data", part).mkdir(parents=True)
    if with_truth:
        Path("data/tasks/a_1/ground_truth/evaluation.py").touch()


def test_what_is_no_data_of_appworld_is_refused_before_anything_is_installed(capsys: Capture) -> None:
    setup = ("setup", "appworld", "--data", "data")
    assert "--data data: has no folder tasks; expected the folder data that `appworld download data`" in refused(
        capsys, *setup
    )
    make_data(with_truth=False)
    assert "--data data: a_1 has no ground_truth; expected the official data, whole" in refused(capsys, *setup)
    assert not Path(".venv-appworld").exists()


def test_a_folder_of_other_things_is_left_alone(capsys: Capture) -> None:
    make_data(with_truth=True)
    check_that_other_folders_are_refused(capsys, "appworld", "--data", "data")


def test_another_number_of_tasks_is_refused() -> None:
    def found(**changes: int) -> dict[str, object]:
        return {"apis": OFFICIAL_APIS, "splits": {split: [0] * n for split, n in (OFFICIAL_SIZES | changes).items()}}

    check_sizes(Path("data"), found(), OFFICIAL_SIZES)
    with pytest.raises(EnvironmentFault, match=r"'dev': 56, .* expected .*'dev': 57.* download them again"):
        check_sizes(Path("data"), found(dev=56), OFFICIAL_SIZES)
    with pytest.raises(EnvironmentFault, match=r"456 APIs; expected .* and 457"):
        check_sizes(Path("data"), {**found(), "apis": 456}, OFFICIAL_SIZES)


def test_a_recipe_names_what_its_benchmark_lacks(capsys: Capture) -> None:
    write_recipe("appworld")
    make = "make it: sgcd setup appworld --data DATA --folder .venv-appworld"
    assert f"environment.folder: .venv-appworld holds no benchmark; {make}" in refused(capsys, *EVALUATE[:3])
    Path(".venv-appworld/bin").mkdir(parents=True)
    Path(".venv-appworld/bin/appworld").touch()
    assert f"environment.folder: .venv-appworld holds no data; {make}" in refused(capsys, *EVALUATE[:3])
    Path(".venv-appworld/appworld.json").write_text("{}")
    assert "appworld.json is of another version of sgcd" in refused(capsys, *EVALUATE[:3])
    Path(".venv-appworld/appworld.json").write_text(json.dumps({"format": 1, "splits": {}}))
    assert "worlds/data has no tasks any more" in refused(capsys, *EVALUATE[:3])
