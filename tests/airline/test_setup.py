"""Every refusal of `sgcd setup airline`, and of a recipe whose benchmark is missing or another; without tau2-bench."""

import json
import tarfile
from pathlib import Path

import pytest

from helpers.benchmarks import EVALUATE, Capture, check_that_other_folders_are_refused, refused, write_recipe
from sgcd.act.environments.airline.description import DATA_CHECKSUMS, categorise
from sgcd.cli import main

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def checkout(name: str = "tau2", *files: str) -> None:
    for file in ("pyproject.toml", *files):
        path = Path("source") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[project]\nname = "{name}"\nversion = "1.0.1"\ndependencies = []\n')


SETUP = ("setup", "airline", "--from", "source")


def test_what_is_no_tau2_bench_is_refused(capsys: Capture) -> None:
    assert "source: does not exist; expected a checkout of tau2-bench" in refused(capsys, *SETUP)
    checkout()
    assert "the package tau2 of the Python index is an unrelated one" in refused(capsys, *SETUP)
    with tarfile.open("source.tar", "w") as archive:
        archive.add("source")
    assert "source.tar: is not tau2-bench" in refused(capsys, *SETUP[:3], "source.tar")
    Path("broken.tar").write_text("no archive")
    assert "broken.tar: cannot be unpacked" in refused(capsys, *SETUP[:3], "broken.tar")


def test_data_of_another_version_are_refused(capsys: Capture) -> None:
    checkout("tau2", "src/tau2/registry.py")
    assert "db.json does not exist; expected the data of tau2-bench v1.0.1" in refused(capsys, *SETUP)
    checkout("tau2", "src/tau2/registry.py", *(f"data/tau2/{name}" for name in DATA_CHECKSUMS))
    assert "db.json is of another version" in refused(capsys, *SETUP)
    assert not Path(".venv-airline").exists()


def test_a_folder_of_other_things_is_left_alone(capsys: Capture) -> None:
    check_that_other_folders_are_refused(capsys, *SETUP[1:])


def test_a_recipe_names_what_its_benchmark_lacks(capsys: Capture) -> None:
    write_recipe("airline")
    told = "environment.folder: .venv-airline holds no benchmark; make it: sgcd setup airline --from"
    assert told in refused(capsys, *EVALUATE)
    Path(".venv-airline").mkdir()
    Path(".venv-airline/benchmark.json").write_text("{}")
    assert "db.json does not exist" in refused(capsys, *EVALUATE)


def test_a_benchmark_that_does_not_start_says_why(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is a script here that ends as Python does when an import fails."""
    task = {"id": "1", "split": "test", "user_prompt": "", "first_words": "", "gold_calls": [], "communicate": []}
    told = {**task, "gold_hash": "", "floor": 0.0, "is_judged_by_model": False}
    domain = {"system": "", "greeting": "", "tools": [], "write_tools": [], "tasks": [told]}
    Path(".venv-airline/bin").mkdir(parents=True)
    Path(".venv-airline/benchmark.json").write_text(json.dumps({"format": 1, "domains": {"airline": domain}}))
    Path(".venv-airline/bin/python").write_text("#!/bin/sh\necho 'No module named tau2.registry' >&2\n")
    Path(".venv-airline/bin/python").chmod(0o755)
    monkeypatch.setattr("sgcd.act.environments.airline.description.find_wrong_data", lambda data, domain: iter(()))
    write_recipe("airline")
    assert main([*EVALUATE, "--trials", "0"]) == 1
    told = "the benchmark does not start: No module named tau2.registry; make it anew: sgcd setup airline"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "category"),
    [
        (["get_user_details", "send_certificate", "transfer_to_human_agents"], "action"),
        (["get_user_details", "transfer_to_human_agents"], "transfer"),
        (["calculate"], "information"),
        ([], "no_action"),
    ],
)
def test_the_category_follows_from_the_gold_calls(names: list[str], category: str) -> None:
    assert categorise([{"name": name} for name in names], frozenset({"send_certificate"})) == category
