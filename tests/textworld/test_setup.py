"""What `sgcd setup textworld`, a recipe and a game refuse; without TextWorld."""

import subprocess
from pathlib import Path

import pytest

from helpers.benchmarks import EVALUATE, Capture, check_that_other_folders_are_refused, refused, write_recipe
from sgcd.act.environments.textworld import setup
from sgcd.act.environments.textworld.game_server import refuse_command
from sgcd.cli import main
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import recipe_differences

RECIPES = Path(__file__).parents[2] / "recipes/textworld"
pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_a_folder_of_other_things_is_left_alone(capsys: Capture) -> None:
    check_that_other_folders_are_refused(capsys, "textworld")


def test_games_that_cannot_be_made_are_an_error(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's interpreter is a script here that ends as Python does when an import fails."""

    def make_environment(folder: Path, packages: list[str], benchmark: str) -> None:
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/python").write_text("#!/bin/sh\necho 'No module named textworld' >&2\nexit 1\n")
        (folder / "bin/python").chmod(0o755)

    monkeypatch.setattr(setup, "make_environment", make_environment)
    assert main(["setup", "textworld"]) == 2
    expected = ".venv-textworld: TextWorld could not make a game: No module named textworld"
    assert capsys.readouterr().err.rstrip().endswith(expected)


def test_a_recipe_names_the_games_that_it_lacks(capsys: Capture) -> None:
    write_recipe("textworld")
    expected = "environment.folder: .venv-textworld holds no games; make them: sgcd setup textworld"
    assert expected in refused(capsys, *EVALUATE)
    Path(".venv-textworld").mkdir()
    Path(".venv-textworld/games.json").write_text("{}")
    assert "games.json is of another version of sgcd; make it anew" in refused(capsys, *EVALUATE)


@pytest.mark.parametrize(
    "command",
    [
        "save",
        "look. SAVE",
        "take key then restart",
        "script",
        "quit",
        "q",
        "look. Q",
        "oops save",
        "undo",
        "look\nlook",
        "lo\0ok",
        "é",
        "x" * 201,
    ],
)
def test_what_the_player_says_to_the_program_is_refused(command: str) -> None:
    assert refuse_command(command)


@pytest.mark.parametrize("command", ["", "go north", "take Henderson's keycard from type 8 safe", "take type Q key"])
def test_what_the_player_says_to_the_game_is_not(command: str) -> None:
    assert not refuse_command(command)


def test_the_recipes_differ_in_the_method_alone() -> None:
    changes = recipe_differences(load_recipe(RECIPES / "grpo.yaml"), load_recipe(RECIPES / "sgcd.yaml"))
    assert {change.key.partition(".")[0] for change in changes} == {"method"}


def test_the_maker_has_seeds_for_each_split() -> None:
    found = subprocess.run(["python3", "-I", setup._MAKER, "games"], capture_output=True)  # pyright: ignore
    assert (found.returncode, found.stdout) == (0, b"")
