"""One process writes in a run's folder; a disk that refuses is one line, leaves nothing torn, and the run goes on."""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

import pytest

from sgcd.cli import app, main
from sgcd.errors import FolderError
from sgcd.storage import atomic, manifest
from sgcd.storage.lock import LOCK_FILE, lock_run
from sgcd.storage.verify import verify_run

Capture = pytest.CaptureFixture[str]
HOLD = """
import sys, time
from pathlib import Path
from sgcd.storage.lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def refused_lines(capture: Capture, *typed: str) -> list[str]:
    capture.readouterr()
    assert main(typed) == 2
    return capture.readouterr().err.splitlines()


def refused(capture: Capture, *typed: str) -> str:
    return refused_lines(capture, *typed)[-1]


def policy(run: str) -> bytes:
    return Path(run, "policy/model.safetensors").read_bytes()


@pytest.fixture
def holder(at_desk: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the run A."""
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1"]) == 0
    process = subprocess.Popen([sys.executable, "-c", HOLD, "A"], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_in_a_run_names_the_first(holder: subprocess.Popen[str], capsys: Capture) -> None:
    for typed in (["train", "--run", "A", "--resume"], ["evaluate", "A"]):
        assert f"sgcd: A: process {holder.pid} on " in refused(capsys, *typed)
        assert " is writing in this folder; wait for it or stop it" in refused(capsys, *typed)
    for typed in (["report", "A"], ["compare", "A", "--against", "A@0"], ["check", "A"]):
        assert main(typed) == 0, "whoever only reads takes no lock"
    holder.kill()
    holder.wait()
    assert json.loads(Path("A", LOCK_FILE).read_text())["pid"] == holder.pid
    assert main(["train", "--run", "A", "--resume", "steps=2"]) == 0, "the lock ended with its process"
    assert Path("A", LOCK_FILE).read_text() == ""


def test_a_new_run_and_an_evaluation_hold_the_lock(at_desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sgcd.learn.training.trainer import Trainer

    def is_locked(*_: Any) -> None:
        with pytest.raises(FolderError, match=f"process {os.getpid()} on"), lock_run(Path("A")):
            pass
        raise FolderError("seen")

    monkeypatch.setattr(Trainer, "train_step", is_locked)
    with pytest.raises(FolderError, match="seen"):
        app(args=["train", "recipe.yaml", "--run", "A"], standalone_mode=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_warning(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sgcd.storage.lock.fcntl.flock", refuse)
    for name in ("facts.json", "recipe.yaml"):  # no run, for what follows the lock is not the subject
        (tmp_path / name).write_text("")
    line = refused_lines(capsys, "train", "--run", str(tmp_path), "--resume")[0]
    assert line.startswith(f"{tmp_path}: this file system has no locks ({os.strerror(number)})")
    assert line.endswith("start none")


def test_a_resumed_run_reads_each_file_of_its_checkpoint_once_to_verify_it(
    at_desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "recipe.yaml", "--run", "A", "steps=2", "evaluation.trials=1"]) == 0
    for path in Path("A").rglob("*"):
        os.utime(path, (10**9, 10**9))
    files_read: list[str] = []

    def digest(file: Any, name: str) -> Any:
        files_read.append(file.name)
        return file_digest(file, name)

    monkeypatch.setattr(manifest, "file_digest", digest)
    assert main(["train", "--run", "A", "--resume", "--fall-back", "steps=3"]) == 0
    times = Counter(name for name in files_read if name.startswith("A/checkpoints/"))
    assert times["A/checkpoints/0002/optimizer.safetensors"] == 1
    assert set(times.values()) == {1}
    assert not [name for name in files_read if name.startswith("A/policy/")], "its step is not the last one"


# -- a disk that refuses ----------------------------------------------------------------------------------------------


def refuse_write(monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> list[int]:
    """The disk's `at`-th write that is forced to it, or rename, fails with this errno, and so does every later one."""
    seen = [0]

    def failing(operation: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            seen[0] += 1
            if seen[0] >= at:
                raise OSError(number, os.strerror(number))
            return operation(*given)

        return called

    monkeypatch.setattr(atomic.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    return seen


@pytest.mark.parametrize(
    ("number", "advice", "instants"),
    [
        (errno.ENOSPC, "free some space there", (47,)),
        pytest.param(errno.ENOSPC, "free some space there", range(5, 90, 6), marks=pytest.mark.slow),
        pytest.param(errno.EROFS, "make it writable", (20, 33), marks=pytest.mark.slow),
        pytest.param(errno.EIO, "look after the disk", (33, 47), marks=pytest.mark.slow),
    ],
)
def test_a_refusing_disk_is_one_line_and_the_run_goes_on(
    at_desk: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    advice: str,
    instants: tuple[int, ...],
) -> None:
    few = ["steps=2", "evaluation.trials=1", "evaluation.greedy=false"]
    assert main(["train", "recipe.yaml", "--run", "whole", *few]) == 0
    for at in instants:
        run = f"A{at}"
        with monkeypatch.context() as patch:
            seen = refuse_write(patch, at, number)
            line = refused(capsys, "train", "recipe.yaml", "--run", run, *few)
            assert seen[0] >= at
        assert line.startswith(f"sgcd: {run}")
        assert f"cannot be written ({os.strerror(number)}); nothing is half written, {advice} and repeat" in line
        if not Path(run, "recipe.yaml").exists():  # not a run yet
            assert main(["train", "recipe.yaml", "--run", run, *few]) == 0
        assert verify_run(Path(run)).damage == []
        assert main(["train", "--run", run, "--resume"]) == 0
        assert policy(run) == policy("whole")
        assert verify_run(Path(run)).damage == []
        assert not list(Path(run).rglob(".*"))


def test_what_a_library_in_rust_raises_is_one_line_too(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    def write_into(folder: Path) -> None:
        with atomic.atomic_folder(folder):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(FolderError, match=r"0010: cannot be written \(No space left on device\)"):
        write_into(tmp_path / "0010")
    assert not list(tmp_path.iterdir()), "its half is gone, for space is needed"
    with pytest.raises(SafetensorError), atomic.writing(tmp_path):
        raise SafetensorError("Error while serializing: a tensor is not contiguous")


def test_a_report_that_cannot_be_written_is_one_line(
    at_desk: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1"]) == 0
    refuse_write(monkeypatch, 1, errno.ENOSPC)
    assert "A/report.html: cannot be written (No space left on device)" in refused(capsys, "report", "A")


def test_a_lock_names_nobody_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with lock_run(tmp_path):
            assert (tmp_path / LOCK_FILE).stat().st_size
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert not (tmp_path / LOCK_FILE).stat().st_size
