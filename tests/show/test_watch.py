"""sgcd watch: the screen of a run that goes on, has ended, was killed, or has only begun."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from helpers import drawn_runs
from sgcd.cli import main
from sgcd.cli.commands.show import watch as command
from sgcd.show.run_numbers import collect_step_numbers
from sgcd.show.watch import RunView, draw_sparkline, render_run
from sgcd.storage.lock import LOCK_FILE, lock_run, read_lock_holder
from sgcd.storage.metrics import StepMetrics


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return drawn_runs.draw(tmp_path / "run").path


def watch(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["watch", str(run)]) == 0
    return capsys.readouterr().out


def left_by_a_kill(run: Path) -> None:
    """The lock as a process leaves it that was killed."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (run / LOCK_FILE).write_text(json.dumps({"pid": gone.pid, "host": platform.node(), "since": "today"}))


def test_a_finished_run_shows_its_numbers(run: Path, capsys: pytest.CaptureFixture[str]):
    lines = watch(run, capsys).splitlines()
    assert lines[0] == f"{run}: sgcd trains ? in lab"
    assert lines[1].startswith("step 2 of 2")
    assert lines[1].endswith("finished")
    by_name = {name: numbers for name, *numbers in (re.split(r"\s{2,}", line.strip()) for line in lines[3:])}
    assert by_name["dev greedy all"][-3:] == ["▄▅", ".375", ".625"]
    assert by_name["dev greedy action"][-2:] == [".500", ".750"]
    assert by_name["mixed groups"][-3:] == ["▃▃", ".333", ".333"]
    assert by_name["loss"][-3:] == ["▁█", ".250", ".500"]
    assert "broken rollouts" not in by_name  # there are none


def test_a_run_that_goes_on_says_how_long_it_takes(run: Path, capsys: pytest.CaptureFixture[str]):
    recipe = (run / "recipe.yaml").read_text().replace("steps: 2", "steps: 32")
    RunView.read(run).folder.replace_recipe(recipe)  # pyright: ignore[reportOptionalMemberAccess]
    with lock_run(run):
        assert "running, about 2:00 left" in watch(run, capsys)  # thirty steps of four seconds
    left_by_a_kill(run)
    *_, hint = watch(run, capsys).strip().splitlines()
    assert hint == f"to go on: sgcd train --run {run} --resume"
    assert "stopped" in watch(run, capsys)


def test_a_run_that_has_only_begun_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with lock_run(tmp_path / "new"):
        assert watch(tmp_path / "new", capsys).strip() == f"{tmp_path / 'new'}: starting, nothing is written yet"
    assert main(["watch", str(tmp_path / "new")]) == 2
    assert "is not a run's folder, it has no recipe.yaml" in capsys.readouterr().err


def test_a_half_written_run_shows_what_is_there(run: Path, capsys: pytest.CaptureFixture[str]):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"schema": 1, "step": 3, "rew')  # never was
    assert "damaged" not in watch(run, capsys)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0].replace("0.25", "0.26"), *lines[1:]]))
    shown = watch(run, capsys)
    assert "damaged: " in shown
    assert "dev greedy all" in shown


def test_the_display_ends_with_the_run(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    console = Console(force_terminal=True, width=110)
    monkeypatch.setattr(command, "results_console", lambda: console)
    with lock_run(run):
        monkeypatch.setattr(command, "sleep", lambda _: (run / LOCK_FILE).write_text(""))
        assert main(["watch", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "finishing" in shown
    assert "finished" in shown


def test_text_of_a_recipe_cannot_move_the_cursor(run: Path):
    view = RunView.read(run)
    view.recipe["method"]["name"] = "\x1b[2Jgone"
    console = Console(width=110, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(render_run(view))
    assert "⟨U+001B⟩[2Jgone" in console.export_text()


def test_the_lock_of_another_machine_counts(run: Path):
    assert read_lock_holder(run) is None
    holder = {"pid": 1, "host": "elsewhere", "since": "today"}
    (run / LOCK_FILE).write_text(json.dumps(holder))
    assert read_lock_holder(run) == holder


def test_many_values_share_blocks_and_numbers_that_are_not_finite_are_left_out():
    assert draw_sparkline([0, 0, 1, 1], 0, 1, width=2) == "▁█"
    row = StepMetrics.from_json({**drawn_runs.ROW, "step": 1, "loss": float("nan")})
    numbers = collect_step_numbers(row)
    assert "loss" not in numbers
    assert numbers["gradient"] == 0.5
