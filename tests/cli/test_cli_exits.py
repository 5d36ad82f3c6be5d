"""Exit codes, the version and shell completion, as docs/command-line.md has them."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import typer

from sgcd.cli import main
from sgcd.recipe import load

Capture = pytest.CaptureFixture[str]
PAGE = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")


def test_the_page_lists_the_codes_that_are_tested_here():
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == ["0", "1", "2", "130"]


def test_0_and_the_version(capsys: Capture):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sgcd {version('sgcd')}\n"


def test_1_is_a_traceback(tmp_path: Path):
    """In a process of its own, because the code is the interpreter's."""
    broken = "import sgcd.cli as cli\ndef bug(*_): raise ZeroDivisionError\ncli.expand_multi_value_options = bug\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{broken}import sys\nsys.exit(cli.main(['check']))"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr


def test_2_is_one_line(capsys: Capture):
    assert main(["check", "nowhere.yaml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, typer.Abort])
def test_130_is_a_stop_of_any_command(monkeypatch: pytest.MonkeyPatch, stopped: type[BaseException]):
    def stop(*_: Any) -> None:
        raise stopped

    monkeypatch.setattr(load, "load_recipe", stop)
    assert main(["check", "recipe.yaml"]) == 130


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sgcd tr", ["train"]),
        ("sgcd references sh", ["show"]),
        ("sgcd train recipe.yaml --re", ["--resume"]),
        ("sgcd train recipe.yaml optimizer.w", ["optimizer.warmup=", "optimizer.weight_decay="]),
        ("sgcd train rec", []),
    ],
)
def test_words_are_completed(capsys: Capture, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]):
    monkeypatch.setenv("_SGCD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_of_the_page_has_a_script(capsys: Capture, monkeypatch: pytest.MonkeyPatch, shell: str):
    assert f"_SGCD_COMPLETE=source_{shell} sgcd" in PAGE
    monkeypatch.setenv("_SGCD_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit):
        main([])
    script = capsys.readouterr().out
    assert f"complete_{shell}" in script
    program = which(shell)
    if program and shell != "zsh":  # zsh defines compdef only in an interactive shell
        subprocess.run([program, "--no-execute" if shell == "fish" else "-n"], input=script, text=True, check=True)
