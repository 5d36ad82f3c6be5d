"""sgcd plot: the pictures of runs for a paper."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from helpers import drawn_runs
from sgcd.cli import main
from sgcd.show.plots.trajectories import FIGURES, read_curves
from sgcd.storage.run_folder import RunFolder

FILES = {f"{name}.{form}" for name in FIGURES for form in ("svg", "png")}


@pytest.mark.slow
def test_two_runs_are_drawn_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs = [drawn_runs.draw(tmp_path / method, method).path for method in ("sgcd", "grpo")]
    assert main(["plot", *map(str, runs), "--out", str(tmp_path / "pictures")]) == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == FILES
    text = "".join(ElementTree.parse(tmp_path / "pictures/tool-use.svg").getroot().itertext())
    for words in ("success on held-out action tasks", f"sgcd ({tmp_path.name}/sgcd)", f"grpo ({tmp_path.name}/grpo)"):
        assert words in text
    assert "not measured" in text  # the drawn runs won no task by a call
    assert capsys.readouterr().out.count("picture: ") == len(FILES)
    first = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert main(["plot", *map(str, runs), "--out", str(tmp_path / "again")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_rates_are_those_of_the_evaluations(tmp_path: Path):
    curves = read_curves(drawn_runs.draw(tmp_path / "run").path)
    rates = {step: (part["all"]["value"], part["action"]["value"]) for step, part in curves.rates.items()}
    assert rates == {0: (0.375, 0.5), 2: (0.625, 0.75)}
    numbers = {
        panel.title: panel.get(curves.metrics[0]) for panels in FIGURES.values() for panel in panels if panel.get
    }
    assert numbers["calls of tools in a rollout"] == pytest.approx(4 / 9)
    assert numbers["rollouts that end before a limit"] == 1.0
    assert numbers["seconds of a step, without evaluation"] == 4.0


def test_a_run_without_a_step_has_no_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    RunFolder.create(tmp_path / "new", drawn_runs.RECIPE, {"machine": {}})
    assert main(["plot", str(tmp_path / "new")]) == 2
    assert "has no step yet, so there is nothing to draw" in capsys.readouterr().err
    assert main(["plot"]) == 2
    assert "which runs?" in capsys.readouterr().err
