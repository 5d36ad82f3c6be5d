"""Docs that name a file, a function, a command or a recipe key name one that exists."""

import ast
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from helpers.misbehaving import Server
from helpers.simulated_users import says
from sgcd.cli import main
from sgcd.cli.commands import check as checking
from sgcd.cli.commands import compare as comparing
from sgcd.cli.commands import evaluate as evaluating
from sgcd.cli.commands import references as referring
from sgcd.cli.commands import sft as starting
from sgcd.cli.commands import train as training
from sgcd.cli.commands.show import bundle as bundling
from sgcd.cli.commands.show import plot as plotting
from sgcd.cli.commands.show import watch as watching
from sgcd.recipe.load import load_recipe

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "src/sgcd"
REFERENCES = (ROOT / "docs/references.md").read_text(encoding="utf-8")
ENDPOINTS = (ROOT / "docs/endpoints.md").read_text(encoding="utf-8")
REWARDS = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")
OWN_METHODS = (ROOT / "docs/own-methods.md").read_text(encoding="utf-8")
FROM_TRL = (ROOT / "docs/from-trl.md").read_text(encoding="utf-8")
METHOD = (ROOT / "docs/method.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def defined(path: Path) -> set[str]:
    """Names that a file defines: functions, classes, constants, and Class.member."""
    names: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)
            elif isinstance(node, ast.Assign):
                names.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


FUNCTIONS = sorted(
    set(re.findall(r"([\w/]+\.py)::([\w.]*\w)", METHOD + ARCHITECTURE + REFERENCES + ENDPOINTS + OWN_METHODS + REWARDS))
)


def test_the_method_names_functions():
    assert len(FUNCTIONS) >= 10


@pytest.mark.parametrize(("path", "name"), FUNCTIONS)
def test_every_function_named_in_the_docs_exists(path: str, name: str):
    file = HOUSE / path
    assert file.is_file(), f"{path} does not exist"
    assert name in defined(file), f"{path} defines no {name}"


def drawn() -> set[str]:
    """The files in the picture of the house: each line begins with a path."""
    [picture] = blocks(ARCHITECTURE, "house")
    return {line.split()[0] for line in picture.splitlines() if line.strip()}


def test_the_picture_of_the_house_is_the_house():
    files = {path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py") if path.stat().st_size}
    assert drawn() == {path for path in files if not path.endswith("/settings.py")}
    script = runpy.run_path(str(ROOT / "docs/write_architecture.py"))
    assert script["render"](ARCHITECTURE) == ARCHITECTURE, "run: python docs/write_architecture.py"


@pytest.mark.parametrize(
    "text",
    [README, ARCHITECTURE, METHOD, REFERENCES, ENDPOINTS, OWN_METHODS, REWARDS, FROM_TRL],
    ids=["README", "architecture", "method", "references", "endpoints", "own-methods", "rewards", "from-trl"],
)
def test_every_path_named_in_the_docs_exists(text: str):
    named = set(re.findall(r"`((?:src|docs|tests|recipes|bench|\.ci)/[\w./-]*)`|\]\(((?!http)[^)#]+)\)", text))
    for inline, linked in named:
        path = inline or linked
        assert (ROOT / path).exists() or (ROOT / "docs" / path).exists(), f"{path} does not exist"


def commands() -> list[str]:
    """Every line of the README's shell blocks, without its comment."""
    lines = "\n".join(blocks(README, "sh")).splitlines()
    return [command for line in lines if (command := line.split("  #")[0].strip())]


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {shlex.split(command)[1] for command in commands() if command.startswith("make ")}
    assert named
    assert named <= targets


def test_every_command_of_the_readme_is_known():
    assert {shlex.split(command)[0] for command in commands()} == {"make", ".", "sgcd", "python"}
    assert all((ROOT / shlex.split(command)[1]).is_file() for command in commands() if command.startswith("python "))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The README's own environment, file by file, and the recipes, in a folder in which we stand."""
    for language, name in (("python", "desk.py"), ("jsonl", "tasks.jsonl"), ("yaml", "desk.yaml")):
        [text] = blocks(README, language)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "desk", sys)  # whichever comes in now goes out again
    monkeypatch.delitem(sys.modules, "desk")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("sgcd ")])
def test_every_sgcd_command_of_the_readme_can_be_typed(
    command: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The line is parsed as if it were typed, and its recipe read; only the work is not done."""
    worked: list[str] = []

    def trained(recipe: Path, keys: list[str], run: Path) -> dict[str, Any]:
        load_recipe(recipe, keys)
        worked.append("train")
        return {}

    def resumed(verb: Any, recipe: Path | None, keys: list[str], run: Path, fall_back: bool) -> dict[str, Any]:
        assert recipe is None
        return trained(Path("recipes/lab/grpo.yaml"), keys, run)

    def nothing(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(training, "start_run", trained)
    monkeypatch.setattr(starting, "start_supervised", lambda *_: worked.append("sft") or {})
    monkeypatch.setattr(starting, "print_run_summary", nothing)
    monkeypatch.setattr(training, "resume_run", resumed)
    monkeypatch.setattr(training, "print_run_summary", nothing)
    monkeypatch.setattr(training, "no_result_reason", nothing)
    monkeypatch.setattr(checking, "check_recipe", lambda *_, **__: worked.append("check"))
    monkeypatch.setattr(checking, "check_run", lambda *_, **__: worked.append("check"))
    for name in ("evaluate_run", "evaluate_with_policy", "evaluate_endpoint", "resume_evaluation"):
        monkeypatch.setattr(evaluating, name, lambda *_, **__: worked.append("evaluate"))
    monkeypatch.setattr(evaluating, "load_policy_recipe", nothing)
    monkeypatch.setattr(comparing, "compare_runs", lambda *_: worked.append("compare"))
    monkeypatch.setattr(comparing, "print_comparison", nothing)
    monkeypatch.setattr(bundling, "bundle_run", lambda *_, **__: worked.append("bundle"))
    monkeypatch.setattr(plotting, "draw_plots", lambda *_: worked.append("plot"))
    monkeypatch.setattr(watching, "watch_run", lambda _: worked.append("watch"))

    def opened(run: Path) -> None:
        worked.append("references")
        raise typer.Exit(0)

    monkeypatch.setattr(referring, "open_run_with_rollouts", opened)
    words = shlex.split(command)[1:]
    assert main(words) == 0, capsys.readouterr().err
    assert worked == ([] if "--help" in words else words[:1])


SMALL = ["siblings={groups: 2, group_size: 4, rounds: 3, limits: {turns: 8, tokens: 160}}", "evaluation.tasks=4"]


def shortened(command: str, server: str) -> list[str]:
    """The words of a command, with fewer steps and rollouts, and a model that answers."""
    command = command.replace("steps=20", "steps=1").replace("steps=40", "steps=2")
    words = shlex.split(command.replace("http://127.0.0.1:8000/v1", server))
    if "desk.yaml" in words and words[1] == "train":
        return [*words, "steps=2"]  # it is small, and its first step finds no mixed group
    is_new = words[:2] == ["sgcd", "train"] and "--resume" not in words and "--help" not in words
    evaluates = words[:2] == ["sgcd", "evaluate"] and words[2].endswith(".yaml")
    return (
        words
        + [word for word in SMALL if is_new]
        + (["steps=1"] if is_new and "steps=1" not in words else [])
        + (SMALL[1:] if evaluates else [])
    )


@pytest.mark.slow
def test_the_commands_of_the_readme_work_in_their_order(desk: Path, capfd: pytest.CaptureFixture[str]):
    """One after the other, in one folder that holds a run already. The runs of other seeds are copies of the first."""
    shutil.copytree(ROOT / "examples", desk / "examples")
    assert main(["train", "recipes/lab/grpo.yaml", "--run", "runs/lab-grpo-1", "steps=1", *SMALL]) == 0
    with Server() as server:
        recipe = desk / "recipes/lab/sgcd-llm.yaml"
        recipe.write_text(recipe.read_text().replace("http://127.0.0.1:8000/v1", server.url))
        for command in commands():
            words = shortened(command, server.url)
            for copy in re.findall(r"runs/[ab]\d", command):
                shutil.copytree("runs/a", copy)
            if words[0] == "sgcd":
                assert main(words[1:]) == 0, f"{command}: {capfd.readouterr().err[-1000:]}"
            elif words[0] == "python":
                subprocess.run([sys.executable, *words[1:]], check=True)


def test_the_environment_of_the_readme_is_twenty_lines():
    [text] = blocks(README, "python")
    assert len([line for line in text.splitlines() if line.strip()]) <= 20
    [recipe] = blocks(README, "yaml")
    assert load_recipe(recipe).environment.name == "own"


@pytest.fixture
def people(desk: Path) -> list[str]:
    """The recipe of docs/endpoints.md with its tasks beside the README's class, and the lab's policy for it."""
    for language, name in (("jsonl", "people.jsonl"), ("yaml", "people.yaml")):
        [text] = blocks(ENDPOINTS, language)
        (desk / name).write_text(text, encoding="utf-8")
    return ["people.yaml", "policy.start=lab:plain", "siblings.limits.tokens=160"]


def test_the_people_of_the_docs_can_be_played(people: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["check", *people]) == 0
    assert (
        "user         NAME at http://127.0.0.1:8000/v1, no key, budget 5000 calls, answers remembered in users.db"
        in (capsys.readouterr().out)
    )


@pytest.mark.slow
def test_the_people_of_the_docs_are_played(people: list[str], capsys: pytest.CaptureFixture[str]):
    def person(number: int, request: dict[str, Any]) -> str:
        said = [message for message in request["messages"] if message["role"] == "user"]
        return says(["please send a voucher for my flight", "b12 thank you", "thanks [[over]]"][min(len(said), 3) - 1])

    with Server(person) as server:
        told = [f"environment.user.base_url={server.url}", "steps=1", "siblings.rounds=1"]
        assert main(["train", *people, *told, "--run", "runs/people"]) in (0, 1)  # 1: no group was mixed
    [row] = [json.loads(line) for line in Path("runs/people/metrics.jsonl").read_text().splitlines()]
    assert row["broken"] == 0
    assert row["user"]["calls"] >= row["rollouts"]


@pytest.mark.slow
def test_the_environment_of_the_readme_is_trained(desk: Path):
    assert main(["check", "desk.yaml"]) == 0
    assert main(["train", "desk.yaml", "--run", "runs/desk", "steps=2"]) == 0
    assert (desk / "runs/desk/policy/model.safetensors").is_file()
