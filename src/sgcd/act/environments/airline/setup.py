"""Makes the benchmark's own environment in a folder: source, data and what it needs; and replays all gold calls."""

import asyncio
import json
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sgcd.act.environments.airline import AirlineEnvironment
from sgcd.act.environments.airline.description import (
    DESCRIPTION_FILE,
    DESCRIPTION_FORMAT,
    SOURCE_FOLDER,
    Domain,
    airline_process,
    find_wrong_data,
    parse_domain,
)
from sgcd.act.environments.benchmark_folder import check_environment_folder, make_environment
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.errors import EnvironmentFault
from sgcd.records import Call, ParsedTurn, Task
from sgcd.storage.atomic import write_atomic

DOMAINS = ("airline", "retail")
_REFUSED_RELEASES = "litellm!=1.82.7,!=1.82.8"
"""These two releases carried malware."""

Report = Callable[[str], None]


def set_up_airline(source: Path, folder: Path, report: Report) -> dict[str, Any]:
    """Make the environment from a checkout of the benchmark or an archive of one; returns what was found, as JSON."""
    check_environment_folder(folder)
    with ExitStack() as stack:
        checkout = unpack(source, stack)
        project = check_checkout(source, checkout)
        (folder / DESCRIPTION_FILE).unlink(missing_ok=True)  # until it is written again the folder is not complete
        report(f"installing what tau2-bench {project['version']} needs into {folder}")
        make_environment(folder, [*project["dependencies"], _REFUSED_RELEASES], "tau2-bench")
        copy_checkout(checkout, folder / SOURCE_FOLDER)
    return describe_benchmark(folder, project["version"], report)


def unpack(source: Path, stack: ExitStack) -> Path:
    """The checkout: the folder itself, or the one in an archive, unpacked until the stack closes."""
    if source.is_dir():
        return source
    if not source.is_file():
        raise EnvironmentFault(f"--from {source}: does not exist; expected a checkout of tau2-bench, or an archive")
    target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sgcd-airline-")))
    try:
        with tarfile.open(source) as archive:
            archive.extractall(target, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise EnvironmentFault(f"--from {source}: cannot be unpacked ({error}); expected a tar archive") from error
    inside = [path.parent for path in target.glob("*/pyproject.toml")]
    return inside[0] if inside else target


def check_checkout(source: Path, checkout: Path) -> dict[str, Any]:
    """The `project` table of the checkout; refuses another package of the name tau2, and data of another version."""
    path = checkout / "pyproject.toml"
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    if project.get("name") != "tau2" or not (checkout / "src/tau2/registry.py").is_file():
        raise EnvironmentFault(
            f"--from {source}: is not tau2-bench, which has src/tau2/registry.py and data/tau2; the package tau2 of "
            "the Python index is an unrelated one; expected a checkout of sierra-research/tau2-bench v1.0.1"
        )
    for problem in find_wrong_data(checkout / "data/tau2", "airline"):
        raise EnvironmentFault(f"--from {source}: {problem}")
    return project


def copy_checkout(checkout: Path, target: Path) -> None:
    """Copy source, data and licence; what an earlier setup left there goes."""
    if target.exists():
        shutil.rmtree(target)
    for part in ("src/tau2", "data/tau2"):
        shutil.copytree(checkout / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "pyproject.toml"):
        if (checkout / name).is_file():
            shutil.copy(checkout / name, target / name)


def describe_benchmark(folder: Path, version: str, report: Report) -> dict[str, Any]:
    """Write the description of each domain whose data are there, and replay its gold calls."""
    descriptions: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for name in DOMAINS:
        if not [*find_wrong_data(folder / SOURCE_FOLDER / "data/tau2", name)]:
            descriptions[name], summary[name] = asyncio.run(describe_domain(folder, name))
            report(f"{name}: {describe_replay(summary[name])}")
    text = json.dumps({"version": version, "format": DESCRIPTION_FORMAT, "domains": descriptions}, ensure_ascii=False)
    write_atomic(folder / DESCRIPTION_FILE, text.encode())
    return {"version": version, "folder": str(folder), "domains": summary}


def describe_replay(replay: Mapping[str, Any]) -> str:
    """One line on a domain."""
    judged = f"; {replay['left_out']} tasks that a model would have to judge are left out" if replay["left_out"] else ""
    return (
        f"{replay['tasks']} tasks; the gold calls succeed on {replay['gold']} of them, doing nothing on "
        f"{replay['nothing']}{judged}"
    )


async def describe_domain(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the server describes, with each task's gold hash and floor; and how the gold calls fare when played."""
    process = airline_process(folder, name)
    try:
        description = dict(await ask_once(process, "describe"))
        for task in description["tasks"]:
            task["gold_hash"] = (await ask_once(process, "gold_hash", task=task["id"]))["hash"]
            verdict = await ask_once(process, "verdict", task=task["id"], gold_hash=task["gold_hash"])
            task["floor"] = verdict["reward"]
        domain = parse_domain(name, description)
        rewards = [await play_gold(domain, process, task_id) for task_id in domain.tasks]
    finally:
        process.stop()
    return description, {
        "tasks": len(domain.tasks),
        "gold": rewards.count(1.0),
        "nothing": [task.floor for task in domain.tasks.values()].count(1.0),
        "left_out": len(description["tasks"]) - len(domain.tasks),
    }


async def ask_once(process: BenchmarkProcess, kind: str, **parts: Any) -> Mapping[str, Any]:
    """One request to an episode of its own."""
    episode = await process.open_episode()
    try:
        return await episode.request(kind, **parts)
    finally:
        await episode.close()


async def play_gold(domain: Domain, process: BenchmarkProcess, task_id: str) -> float:
    """Play the gold calls of a task, then say what it wants to be said; returns the reward."""
    environment = AirlineEnvironment(domain, process, user=None)
    task = domain.tasks[task_id]
    await environment.open(Task(task_id, task.category, {}), seed=0)
    try:
        for call in task.gold_calls:
            await environment.reply(ParsedTurn("", "", (Call(call["name"], call["arguments"]),)))
        await environment.reply(ParsedTurn("", " ".join(["Done.", *task.communicate]), ()))
        return (await environment.verify()).reward
    finally:
        await environment.close()
