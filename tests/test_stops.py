"""The lab's run, stopped by SIGKILL at twenty instants and in every phase: what is resumed ends with the same bytes."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PHASES = {"sampling", "credit", "training", "evaluation", "saving"}
OWN = {"grpo": set[str](), "sgcd": {"reference", "teacher"}}
"""Phases that only this method spends time in."""
KEYS = ("seed=1", "evaluation.tasks=20", "evaluation.trials=1", "evaluation.every=3", "checkpoint.every=2")
INSTANTS = 20

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["sgcd.assemble", "sgcd.cli.commands.train", "sgcd.show.terminal"])


def work(arguments: list[str], phases: str, strikes: str) -> None:
    """A process of its own: sgcd as it is typed, writing down each phase as it begins; strikes itself down in one."""
    import torch

    from sgcd.cli import main
    from sgcd.show.terminal import Terminal

    torch.set_num_threads(1)

    def on_phase(self: Any, name: str) -> None:
        Path(phases).write_text(name)
        if name == strikes and self.rows:  # not before something has been learnt
            os.kill(os.getpid(), signal.SIGKILL)

    Terminal.on_phase = on_phase  # type: ignore[method-assign]
    raise SystemExit(main(arguments))


class Runs:
    """Runs of a method's recipe in one folder, each begun, stopped and resumed as a person would."""

    def __init__(self, place: Path, method: str) -> None:
        self.place = place
        self.method = method

    def start(self, name: str, *keys: str, strikes: str = "") -> Any:
        run = self.place / name
        begun = (run / "recipe.yaml").exists()
        told = ["train", "--run", str(run), "--resume"] if begun else ["train", *self.recipe, "--run", str(run), *KEYS]
        process = forks.Process(target=work, args=([*told, *keys], str(self.phases(name)), strikes))
        process.start()
        return process

    def finish(self, name: str, *keys: str) -> float:
        began = time.monotonic()
        process = self.start(name, *keys)
        process.join()
        assert process.exitcode == 0, f"{name} ended with {process.exitcode}"
        return time.monotonic() - began

    def weights(self, name: str) -> bytes:
        return (self.place / name / "policy/model.safetensors").read_bytes()

    def phases(self, name: str) -> Path:
        return self.place / f"{name}.phase"

    @property
    def recipe(self) -> list[str]:
        return [str(ROOT / f"recipes/lab/{self.method}.yaml")]


@pytest.fixture(scope="module", params=["grpo", "sgcd"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("stops"), request.param)


def test_stopped_at_any_instant_and_resumed_a_run_ends_the_same(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.finish("warm", "steps=1")  # the fork server has loaded everything from here on
    seconds = runs.finish("whole", "steps=6")
    whole = runs.weights("whole")
    assert whole != (ROOT / "src/sgcd/lab/starts/plain/model.safetensors").read_bytes()
    hit: dict[str, int] = {}
    for number in range(INSTANTS):
        name = f"stopped-{number}"
        process = runs.start(name, "steps=6")
        time.sleep(seconds * (number + 0.5) / INSTANTS)
        process.kill()
        process.join()
        phase = runs.phases(name).read_text() if runs.phases(name).exists() else "before the first phase"
        hit[phase] = hit.get(phase, 0) + (process.exitcode == -signal.SIGKILL)
        runs.finish(name, "steps=6")
        assert runs.weights(name) == whole, f"stopped after instant {number} of {INSTANTS}, in {phase}"
    phases = PHASES | OWN[runs.method]
    for phase in sorted(phases - {name for name, times in hit.items() if times}):  # too short to be met by chance
        name = f"struck-in-{phase}"
        process = runs.start(name, "steps=6", strikes=phase)
        process.join()
        assert process.exitcode == -signal.SIGKILL, phase
        runs.finish(name, "steps=6")
        assert runs.weights(name) == whole, f"struck down in {phase}"
        hit[phase] = 1
    with capsys.disabled():
        print(f"\nstopped in: {', '.join(f'{phase} {times}' for phase, times in sorted(hit.items()))}")
    assert set(hit) >= phases


def test_a_run_made_longer_ends_as_one_that_was_long_from_the_start(runs: Runs) -> None:
    runs.finish("short", "steps=6")
    short = runs.weights("short")
    runs.finish("short", "steps=12")
    runs.finish("long", "steps=12")
    assert runs.weights("short") == runs.weights("long") != short
