"""Every command and code block of the docs is run: page by page, in its order, in a fresh folder, in small."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import Server
from helpers.recorded import MIXED, write_lines
from helpers.simulated_users import says
from sgcd.cli import main
from sgcd.cli.commands.lab import app as lab_command
from sgcd.recipe.load import load_recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LANGUAGES = {"sh", "python", "yaml", "jsonl", "diff", "house", "walk", "text"}
"""`text` is output; `house` and `walk` are lists that tests/test_docs.py and tests/test_walks.py read."""
NOT_RUN = {
    "make": "installs, or measures for minutes to hours; a test finds each target",
    "docs/real-model.md": "reads the weights of a pretrained model, 93 MB, and trains for an hour",
    "docs/reproduction.md": "reads AppWorld's data, which are a download of their own",
    "docs/case-airline.md": "reads 200 rollouts of GPT-4o, which are not in the repository",
    "docs/log/methods.md": "fetches the code of other authors, which has no licence",
}
"""Exemptions: the commands of a page, or those that begin with the word. At most five."""
RUN_ELSEWHERE = {
    "docs/command-line.md": "tests/cli/test_cli_exits.py",
    "docs/contributing.md": "tests/test_contributing.py",
    "docs/rewards.md": "tests/cli/test_graded_rewards.py",
    "docs/templates.md": "tests/test_chat_families.py",
    "docs/trl.md": "tests/peers/test_trl_trainer.py",
}
"""Pages whose blocks another file runs."""
SMALL = ["steps=1", "siblings={groups: 2, group_size: 4, rounds: 3, limits: {turns: 8, tokens: 160}}"]
BRIEF = ["evaluation.tasks=4", "evaluation.trials=1"]


def read_page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def list_blocks(name: str) -> list[tuple[str, str, str]]:
    """The paragraph before each block, its language, and its text."""
    found = re.findall(r"((?:[^\n]+\n)*)\n*^```([\w-]*)[^\n]*\n(.*?)^```", read_page(name), re.DOTALL | re.MULTILINE)
    return [(before.strip(), language, text) for before, language, text in found]


PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted(DOCS.rglob("*.md")))]
BLOCKS = {name: list_blocks(name) for name in PAGES}


def list_commands(name: str) -> list[str]:
    """The lines of a page's shell blocks, without their comments."""
    text = "".join(text for _, language, text in BLOCKS[name] if language == "sh").replace("\\\n", "")
    return [command for line in text.splitlines() if (command := re.split(r"\s+# ", line)[0].strip())]


PAGES_TO_RUN = [
    name
    for name in PAGES
    if [line for line in list_commands(name) if "make" not in line.split()[:2]]
    and name not in {"README.md", *NOT_RUN, *RUN_ELSEWHERE}  # tests/test_docs.py runs the README
]


def test_every_block_has_a_language_and_few_commands_are_not_run():
    for name, blocks in BLOCKS.items():
        assert {language for _, language, _ in blocks} <= LANGUAGES, name
    assert len(NOT_RUN) <= 5
    assert {name for name in NOT_RUN if name != "make"} <= {*PAGES}
    for page, test in RUN_ELSEWHERE.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert page in text or Path(page).name in text, f"{test} names no {page}"


def test_every_target_of_make_in_the_docs_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = [line for name in PAGES for line in list_commands(name)]
    named = {word for line in lines for word in re.findall(r"^(?:\w+=\S+ )?make (\S+)", line)}
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", [name for name in PAGES if {"yaml", "jsonl"} & {block[1] for block in BLOCKS[name]}])
def test_every_piece_of_a_recipe_and_every_row_in_the_docs_can_be_read(name: str):
    for _, language, text in BLOCKS[name]:
        if language == "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in text.splitlines())
        elif language == "yaml" and "\narms:" not in text:  # a study: tests/study/test_shipped_studies.py
            whole = {"version": "1", "steps": "1", "policy": '{start: "lab:plain"}', "method": "{name: grpo}"}
            keys = re.findall(r"^(\w+):", text, re.MULTILINE)
            if "rewards:" in text:  # the environment's other keys stand earlier on the page
                own = 'environment:\n  name: own\n  class: "a:A"\n  tasks: tasks.jsonl\n'
                text = text.replace("environment:\n", own)
            load_recipe("".join(f"{key}: {value}\n" for key, value in whole.items() if key not in keys) + text)


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of SGCD in the lab: the run that a reader has when a page begins."""
    folder = tmp_path_factory.mktemp("first") / "a"
    assert main(["train", str(ROOT / "recipes/lab/sgcd.yaml"), "--run", str(folder), *SMALL, *BRIEF]) == 0
    return folder


@pytest.fixture
def here(tmp_path: Path, first_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with recipes, two runs, and the environment of the README."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", "recipes")
    shutil.copytree(first_run, "runs/a")
    shutil.copytree(first_run, "runs/b")
    write_files("README.md")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in ("desk", "front_desk", "calls", "only_here", "surprise"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def write_files(name: str) -> None:
    """The blocks of a page that the paragraph before them gives a file's name."""
    for before, language, text in BLOCKS[name]:
        suffix = {"python": "py"}.get(language, language)
        if language != "sh" and (files := re.findall(rf"`([\w.-]+\.{suffix})`", before)):
            Path(files[-1]).write_text(text, encoding="utf-8")


def prepare_credit() -> None:
    shutil.rmtree("runs/b")
    write_lines(Path("rollouts.jsonl"), MIXED)


def prepare_first_hour() -> None:
    Path("runs/a").rename("runs/lab-sgcd-1")  # as `make lab` leaves it


def prepare_own_methods() -> None:
    shutil.copy("recipes/lab/grpo.yaml", "recipe.yaml")


def prepare_study() -> None:
    """The study of the page, with two arms, two seeds and one step."""
    Path("studies").mkdir()
    keys = {"steps": 1, "siblings.groups": 2, "siblings.group_size": 4, "evaluation.tasks": 4, "evaluation.trials": 1}
    study = {"version": 1, "title": "small", "recipe": "../recipes/lab/grpo.yaml", "keys": keys, "seeds": [1, 2]}
    arms = {"grpo": {"method": {"name": "grpo"}}, "entropy": {"method": {"name": "entropy"}}}
    Path("studies/control.yaml").write_text(json.dumps(study | {"arms": arms, "compare_with": ["grpo"]}))


def prepare_supervised() -> None:
    [(_, _, start), *_] = [block for block in BLOCKS["docs/supervised.md"] if block[1] == "yaml"]
    Path("sft.yaml").write_text(start.replace("OWNER/NAME", "lab:plain").replace("tasks.jsonl}", "tasks.jsonl}"))
    [row] = [text for _, language, text in BLOCKS["docs/supervised.md"] if language == "jsonl"]
    for name in ("demonstrations.jsonl", "held-out.jsonl"):
        Path(name).write_text(row)
    shutil.copy("tasks.jsonl", "dev.jsonl")
    shutil.copy("recipes/lab/grpo.yaml", "grpo.yaml")


PREPARE: dict[str, Callable[[], None]] = {
    "docs/credit.md": prepare_credit,
    "docs/first-hour.md": prepare_first_hour,
    "docs/own-methods.md": prepare_own_methods,
    "docs/study.md": prepare_study,
    "docs/supervised.md": prepare_supervised,
    "docs/watching.md": lambda: shutil.rmtree("runs/b"),
}


def shorten(command: str, server: str) -> list[str]:
    """The words of a command, with fewer steps, rollouts and tasks, and with a server that answers."""
    replaced = {
        "http://127.0.0.1:8000/v1": server,
        "OWNER/NAME": "lab:plain",
        "--tasks 200 --trials 4": "--tasks 4 --trials 4",
        '"trackers=[tensorboard, wandb]"': "trackers=[]",  # with their libraries: tests/show/test_trackers.py
    }
    for old, new in replaced.items():
        command = command.replace(old, new)
    words = shlex.split(command)
    verb = words[1] if words[0] == "sgcd" and len(words) > 1 else ""
    is_new = "--resume" not in words
    if verb == "train" and is_new:
        words += ["steps=2", *BRIEF] if "desk.yaml" in words else SMALL + BRIEF  # it is small
    elif verb == "sft" and is_new:
        words += ["supervised.epochs=1", *BRIEF]
    elif verb == "evaluate" and words[2].endswith(".yaml"):
        words += BRIEF
    return words


def run_command(words: list[str], page: str) -> int:
    if words[0] == "sgcd":
        return main(words[1:])
    if words[0] == "cd":
        os.chdir(words[1])
        sys.path.insert(0, str(Path.cwd()))
        write_files(page)  # where the reader stands
        return 0
    if words[0] == ".":  # the shell has sgcd
        return 0
    words[0] = sys.executable if words[0] == "python" else words[0]
    return subprocess.run(words, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES_TO_RUN)
def test_the_commands_of_a_page_work_in_their_order(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    write_files(name)
    PREPARE.get(name, lambda: None)()
    monkeypatch.setattr(lab_command, "shipped_path", Path)
    with Server(answer_user) as server:
        for file in here.glob("*.yaml"):
            text = file.read_text(encoding="utf-8").replace("http://127.0.0.1:8000/v1", server.url)
            text = text.replace("Qwen/Qwen3-0.6B", "lab:plain").replace("tokens: 1024", "tokens: 160")
            file.write_text(text, encoding="utf-8")
        for command in list_commands(name):
            if "make" not in command.split()[:2]:
                code = run_command(shorten(command, server.url), name)
                expected = {2} if "optimiser.lr" in command else {0, 1} if "people.yaml" in command else {0}
                assert code in expected, f"{command}: {capfd.readouterr().err[-1000:]}"


def answer_user(number: int, request: dict[str, Any]) -> str:
    return says("thanks [[over]]" if number % 2 else "please send a voucher for my flight")
