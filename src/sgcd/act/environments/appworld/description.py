"""What `sgcd setup appworld` wrote down about AppWorld: its tasks by split, and where worlds and verdicts come from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgcd.act.environments.benchmark_process import BenchmarkProcess, ServerCommand
from sgcd.errors import EnvironmentFault

APPWORLD_DESCRIPTION = "appworld.json"
APPWORLD_FORMAT = 1
WORLDS_ROOT, VERDICTS_ROOT = "worlds", "verdicts"
"""Folders with data of the benchmark: without ground truth for episodes, whole for verdicts."""
CODE_SECONDS = 30
"""Time limit of one block of code."""
SHARING = (
    "this run holds tasks, API documents and outputs of AppWorld; its licence lets them be passed on only in encrypted "
    "form: do not publish the folder, its report or its rollouts"
)


@dataclass(frozen=True, slots=True)
class AppWorldTask:
    """A task of the benchmark, as far as it is known before it is opened."""

    id: str
    scenario: str
    """The three tasks of a scenario are variants of one another."""
    difficulty: int
    floor: float
    """The reward of an agent that does nothing."""


def appworld_process(folder: Path, root: str, code_seconds: int = CODE_SECONDS) -> BenchmarkProcess:
    """The server of worlds, or that of verdicts."""
    command = ServerCommand(
        folder=folder,
        script=Path(__file__).with_name("benchmark_server.py"),
        class_name="Worlds",
        setup=appworld_setup_command(folder),
        arguments=(str((folder / root).resolve()), str(code_seconds)),
    )
    return BenchmarkProcess(command)


def appworld_setup_command(folder: Path) -> str:
    return f"sgcd setup appworld --data DATA --folder {folder}"


def load_appworld(folder: Path) -> dict[str, tuple[AppWorldTask, ...]]:
    """The tasks of each split, from the folder that `sgcd setup appworld` made."""
    path = folder / APPWORLD_DESCRIPTION
    if not path.is_file():
        lacks = "no data" if (folder / "bin/appworld").exists() else "no benchmark"
        raise EnvironmentFault(f"environment.folder: {folder} holds {lacks}; make it: {appworld_setup_command(folder)}")
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != APPWORLD_FORMAT:
        raise EnvironmentFault(
            f"environment.folder: {path} is of another version of sgcd; make it anew: {appworld_setup_command(folder)}"
        )
    for root in (WORLDS_ROOT, VERDICTS_ROOT):
        if not (folder / root / "data/tasks").is_dir():
            raise EnvironmentFault(
                f"environment.folder: {folder / root / 'data'} has no tasks any more; make it anew: "
                f"{appworld_setup_command(folder)}"
            )
    return parse_splits(description["splits"])


def parse_splits(splits: Mapping[str, Any]) -> dict[str, tuple[AppWorldTask, ...]]:
    return {split: tuple(AppWorldTask(**task) for task in tasks) for split, tasks in splits.items()}
