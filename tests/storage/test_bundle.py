"""sgcd bundle: what a shared run holds, what it never holds, and that a key stops it."""

import json
import tarfile
from pathlib import Path

import pytest

from helpers import drawn_runs
from sgcd.cli import main
from sgcd.storage.bundle import find_secrets, read_secret_values
from sgcd.storage.manifest import MANIFEST_FILE, RunManifest
from sgcd.storage.run_folder import RunFolder
from sgcd.storage.verify import verify_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = drawn_runs.draw(tmp_path / "run").path
    (path / "policy").mkdir()
    (path / "policy/model.safetensors").write_bytes(b"weights")
    (path / "calls.jsonl").write_text("")
    (path / "report.html").write_text("<p>page</p>")
    return path


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {name.removeprefix("run/") for name in opened.getnames()}


def test_a_bundle_is_the_run_without_weights(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bundle", str(run)]) == 0
    held = names(tmp_path / "run.tar.gz")
    assert {"recipe.yaml", "metrics.jsonl", "rollouts/0001.jsonl", "credit/0002.safetensors", "report.html"} <= held
    assert not held & {"policy/model.safetensors", "calls.jsonl"}
    assert f"bundle: {tmp_path / 'run.tar.gz'}, {len(held)} files" in capsys.readouterr().out
    first = (tmp_path / "run.tar.gz").read_bytes()
    assert main(["bundle", str(run)]) == 0
    assert (tmp_path / "run.tar.gz").read_bytes() == first
    with tarfile.open(tmp_path / "run.tar.gz") as archive:
        archive.extractall(tmp_path / "there", filter="data")
    assert verify_run(tmp_path / "there/run").damage == []


def test_without_texts_nothing_of_the_tasks_is_in_it(run: Path, tmp_path: Path):
    assert main(["bundle", str(run), "--no-texts"]) == 0
    held = names(tmp_path / "run.tar.gz")
    assert "evaluation.jsonl" in held
    assert not [name for name in held if name.startswith(("rollouts", "references", "credit", "report"))]


def test_texts_of_a_closed_benchmark_are_left_out(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    RunFolder.open(run).replace_recipe(drawn_runs.RECIPE.replace("name: lab", "name: appworld"))
    assert main(["bundle", str(run)]) == 0
    assert "AppWorld's licence" in capsys.readouterr().out
    assert "rollouts/0001.jsonl" not in names(tmp_path / "run.tar.gz")


def test_what_a_run_says_about_sharing_is_shown(run: Path, capsys: pytest.CaptureFixture[str]):
    facts = RunFolder.open(run).facts | {"sharing": "its tasks may not be shared as plain text"}
    RunManifest.read(run / MANIFEST_FILE).replace_file(run / "facts.json", json.dumps(facts).encode())
    assert main(["bundle", str(run)]) == 0
    assert "sharing: its tasks may not be shared as plain text" in capsys.readouterr().out


@pytest.mark.parametrize(
    "secret",
    ["hf_" + "a" * 34, "sk-proj-" + "b" * 24, "AKIA" + "C" * 16, "-----BEGIN RSA PRIVATE KEY-----", "of-my-variable-1"],
)
def test_a_key_stops_the_bundle(
    secret: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MY_API_KEY", "of-my-variable-1")
    (run / "notes.txt").write_text(f"first\nkey {secret} end\n")
    assert main(["bundle", str(run)]) == 2
    error = capsys.readouterr().err
    assert "notes.txt, line 2: holds what looks like" in error
    assert secret not in error
    assert not (tmp_path / "run.tar.gz").exists()


def test_ordinary_words_are_no_keys(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("ask-me-anything-about-tasks-and-skills, task-oriented; a sk-short; hf_token; bearer of news\n")
    assert [*find_secrets({"a.txt": path}, read_secret_values({"KEYBOARD": "de", "MY_TOKEN": "short"}))] == []
