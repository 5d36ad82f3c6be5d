"""What is refused on the command line before anything starts; the environment of these tests may be without verl."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import sgcd.verl
from sgcd.cli import main

LAB = "recipes/lab/sgcd.yaml"
ROOM = "verl.prompt_tokens=512"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({}, "engine: verl 0.9 is not installed here; install it in an environment of its own: make verl"),
        ({"verl": "1.2.0"}, "written for version 0.9, and 1.2.0 is installed"),
        ({"verl": "0.9.1", "trl": "1.16.0"}, "TRL 1.16.0 is beside verl"),
    ],
)
def test_an_environment_that_cannot_train_on_verl_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    versions: dict[str, str],
    message: str,
) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(sgcd.verl, "version", version)
    assert message in refused(capsys, "train", LAB, "engine=verl", ROOM, "--run", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_counterpart_is_refused_by_check_and_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = "engine=verl has no counterpart of control=permuted"
    assert problem in refused(capsys, "check", LAB, "engine=verl", "control=permuted")
    assert problem in refused(capsys, "train", LAB, "engine=verl", "control=permuted", "--run", str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("verl.prompt_tokens=10", "verl.prompt_tokens: the first task's prompt has"),
        ("verl.prompt_tokens=100000", "do not fit the policy's window of"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str], key: str, message: str) -> None:
    assert message in refused(capsys, "check", LAB, "engine=verl", key)


def test_check_shows_the_recipe_in_verls_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", LAB, "engine=verl", ROOM]) == 0
    shown = capsys.readouterr().out
    assert "actor_rollout_ref.rollout.max_model_len=736" in shown and "trainer.total_training_steps=40" in shown
