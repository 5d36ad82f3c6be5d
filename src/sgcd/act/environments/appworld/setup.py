"""Makes AppWorld's own environment in a folder, checks the official data, and copies them without ground truth."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sgcd.act.environments.appworld import AppWorldEnvironment
from sgcd.act.environments.appworld.description import (
    APPWORLD_DESCRIPTION,
    APPWORLD_FORMAT,
    VERDICTS_ROOT,
    WORLDS_ROOT,
    appworld_process,
)
from sgcd.act.environments.benchmark_folder import check_environment_folder, make_environment
from sgcd.errors import EnvironmentFault
from sgcd.records import ParsedTurn, Task
from sgcd.storage.atomic import write_atomic

APPWORLD_RELEASE = "appworld==0.1.3.post1"
OFFICIAL_SIZES = {"train": 90, "dev": 57, "test_normal": 168, "test_challenge": 417}
OFFICIAL_APIS = 457
GROUND_TRUTH = "ground_truth"
_CONSTRAINTS = Path(__file__).with_name("constraints.txt")


def set_up_appworld(
    folder: Path,
    data: Path | None,
    report: Callable[[str], None],
    sizes: Mapping[str, int] = OFFICIAL_SIZES,
) -> dict[str, Any]:
    """Install the package, and with `data` make the folder ready to play; returns what was found, as JSON."""
    check_environment_folder(folder)
    if data:
        check_data(data)
    (folder / APPWORLD_DESCRIPTION).unlink(missing_ok=True)  # until it is written again the folder is not complete
    if not is_installed(folder):
        install(folder, report)
    if data is None:
        report(how_to_get_data(folder))
        return {"folder": str(folder), "package": APPWORLD_RELEASE, "splits": None}
    report(f"copying {data} without ground truth")
    copy_data(data, folder)
    description = asyncio.run(describe_data(folder, data, sizes))
    write_atomic(folder / APPWORLD_DESCRIPTION, json.dumps({"format": APPWORLD_FORMAT, **description}).encode())
    found = {split: len(tasks) for split, tasks in description["splits"].items()}
    return {"folder": str(folder), "package": APPWORLD_RELEASE, "splits": found}


def is_installed(folder: Path) -> bool:
    """The package of this release is there, and its code is unpacked."""
    release = APPWORLD_RELEASE.replace("==", "-")
    return any(
        (site / f"{release}.dist-info").is_dir() and (site / "appworld/apps/supervisor").is_dir()
        for site in folder.glob("lib/python3*/site-packages")
    )


def install(folder: Path, report: Callable[[str], None]) -> None:
    """Install the package, and unpack its code, which it ships encrypted."""
    report(f"installing {APPWORLD_RELEASE} into {folder}")
    make_environment(folder, [APPWORLD_RELEASE, "--constraint", str(_CONSTRAINTS)], "AppWorld")
    variables = {**os.environ, "APPWORLD_CACHE": str((folder / "cache").resolve())}
    done = subprocess.run(
        [folder / "bin/appworld", "install"], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode or not is_installed(folder):
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise EnvironmentFault(f"{folder}: `appworld install` could not unpack the package's code: {reason}")


def how_to_get_data(folder: Path) -> str:
    """The commands that download the official data, and the one that uses them."""
    return (
        "AppWorld's data are a download of their own, of its makers. In an empty folder, because the command first "
        f"removes a folder named data: {(folder / 'bin/appworld').resolve()} download data; then: sgcd setup appworld "
        f"--data PATH_OF_THAT_FOLDER/data --folder {folder}"
    )


def check_data(data: Path) -> None:
    """Refuse what is no data root of AppWorld."""
    for part in ("tasks", "datasets", "base_dbs", "api_docs/standard"):
        if not (data / part).is_dir():
            raise EnvironmentFault(
                f"--data {data}: has no folder {part}; expected the folder data that `appworld download data` makes"
            )
    for task in sorted((data / "tasks").iterdir()):
        if not (task / GROUND_TRUTH / "evaluation.py").is_file():
            raise EnvironmentFault(
                f"--data {data}: {task.name} has no {GROUND_TRUTH}; expected the official data, whole"
            )


def copy_data(data: Path, folder: Path) -> None:
    """Two roots: a copy without ground truth for worlds, and a link to all of it for verdicts."""
    for root in (WORLDS_ROOT, VERDICTS_ROOT):
        shutil.rmtree(folder / root, ignore_errors=True)
        (folder / root).mkdir()
    shutil.copytree(data, folder / WORLDS_ROOT / "data", ignore=shutil.ignore_patterns(GROUND_TRUTH))
    (folder / VERDICTS_ROOT / "data").symlink_to(data.resolve(), target_is_directory=True)


def check_sizes(data: Path, description: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Refuse data that have another number of tasks or APIs than the official ones."""
    found = {split: len(tasks) for split, tasks in description["splits"].items()}
    if found != sizes or description["apis"] != OFFICIAL_APIS:
        raise EnvironmentFault(
            f"--data {data}: has {found} tasks and {description['apis']} APIs; expected {dict(sizes)} and "
            f"{OFFICIAL_APIS}, the data of version 0.1.0: download them again"
        )


async def describe_data(folder: Path, data: Path, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The tasks of each split, as the package lists them; the first one is tried."""
    worlds, verdicts = (appworld_process(folder, root) for root in (WORLDS_ROOT, VERDICTS_ROOT))
    try:
        episode = await verdicts.open_episode()
        description = dict(await episode.request("describe"))
        await episode.close()
        check_sizes(data, description, sizes)
        first = next(task for tasks in description["splits"].values() for task in tasks)
        await try_task(AppWorldEnvironment(worlds, verdicts), first)
    finally:
        worlds.stop()
        verdicts.stop()
    return description


async def try_task(environment: AppWorldEnvironment, task: Mapping[str, Any]) -> None:
    """Open a task in a world, run a line there, and judge it."""
    try:
        await environment.open(Task(task["id"], "", {"benchmark_id": task["id"]}), seed=0)
        reply = await environment.reply(ParsedTurn("", "```python\nprint(6 * 7)\n```", ()))
        verdict = await environment.verify()
    finally:
        await environment.close()
    output = reply.messages[0]["content"].strip()
    if (output, verdict.reward) != ("42", task["floor"]):
        raise EnvironmentFault(
            f"environment.folder: task {task['id']} does not play as it should: a line of code gave {output[:80]!r}, "
            f"and doing nothing {verdict.reward}; expected '42' and {task['floor']}: remove the folder and install anew"
        )
