"""Trackers: each with its real library and without a network; one that fails costs a warning and nothing else."""

import io
import logging
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers import drawn_runs
from sgcd.cli import main
from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import select_evaluation
from sgcd.show import trackers
from sgcd.storage.run_folder import RunFolder


def library(name: str) -> Any:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed: make trackers")


def track(path: Path, *names: Any) -> RunFolder:
    """Show a drawn run of two steps as if it went on."""
    folder = drawn_runs.draw(path)
    console = Console(file=io.StringIO())
    with trackers.TrackedTerminal(console, 2, folder=folder, trackers=names) as terminal:
        evaluations = folder.read_evaluations()
        for row in folder.read_metrics():
            terminal.on_step(row)
        terminal.on_evaluation(summarise_evaluation(select_evaluation(evaluations, "dev", 2)))
    return folder


@library("tensorboard")
def test_tensorboard_gets_numbers_and_samples(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore

    folder = track(tmp_path / "run", "tensorboard")
    events: Any = EventAccumulator(str(folder.path / "trackers/tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.25), (2, 0.5)]
    assert [event.value for event in events.Scalars("dev_greedy_all")] == [0.625]
    [event] = events.Tensors("rollouts/failure/text_summary")
    assert b"please cancel b12" in event.tensor_proto.string_val[0]


@library("trackio")
def test_trackio_gets_numbers_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read where trackio is imported first, here
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore

    folder = track(tmp_path / "run", "trackio")
    rows: Any = SQLiteStorage.get_logs("sgcd", trackers.name_run(folder))
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [0.25, 0.5]
    assert [row["dev_greedy_all"] for row in rows if "dev_greedy_all" in row] == [0.625]
    assert any("please cancel b12" in str(row.get("rollouts/success")) for row in rows)


def read_log(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, each piece with a checksum, its size and its kind."""
    offset, record = 7, b""
    while offset < len(content):
        if (left := 32_768 - offset % 32_768) < 7:
            offset += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, offset)
        record += content[offset + 7 : offset + 7 + size]
        offset += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


@library("wandb")
def test_wandb_keeps_an_offline_run_in_the_folder(tmp_path: Path):
    import wandb  # pyright: ignore
    from wandb.proto import wandb_internal_pb2  # pyright: ignore

    folder = track(tmp_path / "run", "wandb")
    wandb.teardown()  # as at the end of a process
    [path] = (folder.path / "trackers/wandb").glob("offline-run-*/*.wandb")
    logged: list[tuple[str, str]] = []
    for data in read_log(path.read_bytes()):
        record: Any = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        logged += [(item.key or "/".join(item.nested_key), item.value_json) for item in record.history.item]
    assert [value for key, value in logged if key == "train/loss"] == ["0.25", "0.5"]
    assert [value for key, value in logged if key == "dev_greedy_all"] == ["0.625"]
    [page] = (path.parent / "files/media/html").rglob("success*.html")
    assert "please cancel b12" in page.read_text()


class Fails:
    def __init__(self, folder: RunFolder) -> None:
        self.fails_in = folder.path.name

    def log(self, step: int, numbers: Any, texts: Any) -> None:
        if self.fails_in == "hangs":
            import time

            time.sleep(60)
        raise OSError("no space is left in the cloud")

    def close(self) -> None: ...


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_a_tracker_that_fails_or_hangs_is_left(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": ("json", Fails)})
    monkeypatch.setattr(trackers, "_CLOSE_SECONDS", 0.2)
    with caplog.at_level(logging.WARNING, logger="sgcd"):
        track(tmp_path / fault, "wandb")
    warning = {
        "fails": "tracker wandb: no space is left in the cloud; the run goes on without it",
        "hangs": "tracker wandb: has not ended after 0.2 s; the run leaves it",
    }
    assert warning[fault] in caplog.text


def test_a_tracker_without_its_library_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    words = ["train", "recipes/lab/grpo.yaml", "--run", str(tmp_path / "a"), "trackers=[wandb]"]
    monkeypatch.chdir(Path(__file__).parents[2])
    assert main(words) == 2
    assert "trackers: wandb is not installed; expected its library, pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_an_unknown_tracker_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert main(["check", "recipes/lab/grpo.yaml", "trackers=[tensorbord]"]) == 2
    assert "tensorboard" in capsys.readouterr().err


def test_samples_are_one_success_and_one_failure(tmp_path: Path):
    folder = drawn_runs.draw(tmp_path / "run")
    samples = trackers.sample_rollouts(folder, 2)
    assert [*samples] == ["rollouts/success", "rollouts/failure"]
    assert samples["rollouts/failure"].startswith("task t-1, sibling 0, answered\n[system] be kind\n[user] please")
    assert trackers.sample_rollouts(folder, 7) == {}


@pytest.mark.slow
def test_a_run_ends_as_without_its_tracker_that_fails(
    at_desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": ("json", Fails)})
    assert main(["train", "recipe.yaml", "--run", "without", "steps=1"]) in (0, 1)
    assert main(["train", "recipe.yaml", "--run", "with", "steps=1", "trackers=[wandb]"]) in (0, 1)
    assert "tracker wandb: no space is left in the cloud; the run goes on without it" in capsys.readouterr().err
    weights = [(at_desk / name / "policy/model.safetensors").read_bytes() for name in ("without", "with")]
    assert weights[0] == weights[1]
