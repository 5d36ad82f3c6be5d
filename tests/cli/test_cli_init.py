"""sgcd init: what it writes is the README's example, is read as a recipe, and is never written over something."""

import json
import re
import sys
from pathlib import Path

import pytest

from sgcd.cli import main
from sgcd.cli.commands.init import build_files
from sgcd.recipe.keys import list_keys
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import Recipe

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("language", "name"), [("python", "desk.py"), ("jsonl", "tasks.jsonl"), ("yaml", "desk.yaml")])
def test_the_files_are_those_of_the_readme(language: str, name: str):
    [block] = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert build_files()[name].removeprefix("# yaml-language-server: $schema=recipe.schema.json\n") == block


def test_the_folder_can_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert main(["init", str(tmp_path / "desk")]) == 0
    assert "next: cd " in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "desk"), *sys.path])
    monkeypatch.setitem(sys.modules, "desk", sys)
    monkeypatch.delitem(sys.modules, "desk")
    assert load_recipe(Path("desk.yaml")).environment.name == "own"
    assert main(["check", "desk.yaml"]) == 0
    assert main(["init", str(tmp_path / "desk")]) == 2
    assert "is not empty; expected a new folder" in capsys.readouterr().err


def test_the_schema_knows_every_key_and_what_it_is():
    schema = json.loads(build_files()["recipe.schema.json"])
    sections = {key.path.split(".")[0] for key in list_keys(Recipe)}
    assert set(schema["properties"]) == sections
    assert schema["properties"]["seed"]["description"] == "Seed of everything random."
    assert schema["additionalProperties"] is False
    assert "class" in json.dumps(schema["$defs"]["OwnEnvironmentSettings"]["properties"])
