"""Trains the runs of a study, each as a process of `sgcd train`; a stopped run is resumed, a finished one is kept."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from sgcd.errors import FolderError, StudyError
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import keep_micro_batches, recipe_differences
from sgcd.storage.atomic import write_atomic
from sgcd.storage.lock import lock_run
from sgcd.storage.run_folder import RunFolder
from sgcd.study.arms.plan import PlannedRun
from sgcd.study.arms.train_process import run_train_process

ReportLine = Callable[[str], None]
CRASH_FILE = "crash.txt"
"""Beside the folder of a run that ended with an error: its last line. The next call tries the run again."""
_STOPPED = 130
_LOCK_POLL_SECONDS = 2.0


def train_runs(runs: Sequence[PlannedRun], jobs: int, report: ReportLine) -> None:
    """Train what is not finished yet, `jobs` processes at a time; say after each run how much time is left."""
    check_same_recipes(runs)
    waiting = [run for run in runs if not is_finished(run)]
    if len(waiting) < len(runs):
        report(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already")
    began = time.monotonic()
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(_train, run, report): run for run in waiting}
        for num_done, future in enumerate(as_completed(futures), 1):
            problem, left = future.result(), len(waiting) - num_done
            minutes = (time.monotonic() - began) / num_done * left / 60
            outcome = f"crashed: {problem}" if problem else "finished"
            remaining = f"; {left} runs left, about {minutes:.0f} minutes" if left else ""
            report(f"{futures[future].name} {outcome}{remaining}")
    finally:
        pool.shutdown(cancel_futures=True)


def check_same_recipes(runs: Sequence[PlannedRun]) -> None:
    """Refuse a folder whose run was started with other keys."""
    for run in runs:
        recipe_file = run.path / "recipe.yaml"
        started = load_recipe(recipe_file, is_supervised=False) if recipe_file.exists() else run.recipe
        if changes := recipe_differences(started, keep_micro_batches(run.recipe, started)):
            described = ", ".join(f"{change.key} was {change.old}, is {change.new}" for change in changes)
            raise StudyError(f"{run.path}: was started otherwise: {described}; give the study another folder (--runs)")


def is_finished(run: PlannedRun) -> bool:
    """The policy is written last."""
    if not (run.path / "recipe.yaml").exists():
        return False
    folder = RunFolder.open(run.path)
    return folder.policy_path.is_dir() and max(folder.checkpoint_steps(), default=0) >= run.recipe.steps


def crash_path(run: PlannedRun) -> Path:
    return run.path.with_name(f"{run.path.name}.{CRASH_FILE}")


def read_crash(run: PlannedRun) -> str:
    """The last line of a run that crashed; empty if it did not."""
    path = crash_path(run)
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _train(run: PlannedRun, report: ReportLine) -> str:
    """The last line of a run that crashed, also kept in a file; empty where it finished."""
    _wait_for_lock(run.path, report)
    is_started = (run.path / "recipe.yaml").exists()
    arguments = ["--resume"] if is_started else [str(run.recipe_path), *run.overrides]
    finished = run_train_process(["--run", str(run.path), *arguments])
    if finished.exit_code in (_STOPPED, -2):
        raise KeyboardInterrupt
    if is_finished(run):  # a run that moved nothing ends with code 1, and is a result too
        crash_path(run).unlink(missing_ok=True)
        return ""
    crash = next(filter(None, reversed(finished.messages)), f"exit code {finished.exit_code} and no message")
    write_atomic(crash_path(run), f"{crash}\n".encode())
    return crash


def _wait_for_lock(path: Path, report: ReportLine) -> None:
    """Wait for a process that outlived a killed study and still writes in this run's folder."""
    is_reported = False
    while path.exists():
        try:
            with lock_run(path):
                return
        except FolderError as error:
            if not is_reported:
                report(f"waiting: {error}")
            is_reported = True
            time.sleep(_LOCK_POLL_SECONDS)
