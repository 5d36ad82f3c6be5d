"""Measures what AppWorld costs: a step beside the package's own, a new world beside a forked one, and memory.

    python bench/appworld/cost.py [--folder .venv-appworld] [--pairs 60] [--worlds 8]

Steps here and in the package take turns, so that other work on the machine meets both.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from statistics import median

from sgcd.act.environments.appworld import AppWorldEnvironment
from sgcd.act.environments.appworld.description import (
    VERDICTS_ROOT,
    WORLDS_ROOT,
    appworld_process,
    load_appworld,
)
from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.records import ParsedTurn, Task

sys.path.append(str(Path(__file__).resolve().parents[1]))
from side_by_side.benchmark_package import BenchmarkPackage

CODE = "profile = apis.supervisor.show_profile()\nprint(profile)"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".venv-appworld"))
    for name, default in (("pairs", 60), ("worlds", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    task = load_appworld(options.folder)["dev"][0].id
    worlds, verdicts = (appworld_process(options.folder, root) for root in (WORLDS_ROOT, VERDICTS_ROOT))
    began = time.perf_counter()
    await open_world(worlds, verdicts, task)
    started = time.perf_counter() - began
    openings: list[float] = []
    for _ in range(options.worlds):
        began = time.perf_counter()
        await (await open_world(worlds, verdicts, task)).close()
        openings.append(time.perf_counter() - began)
    print(f"world: {started:.2f} s with its server, {median(openings):.3f} s from a running one")
    ours, theirs = await time_pairs(await open_world(worlds, verdicts, task), options.folder, task, options.pairs)
    print(
        f"step: {1e3 * median(ours):.1f} ms here, {1e3 * median(theirs):.1f} ms by the package, "
        f"ratio {median(ours) / median(theirs):.2f}"
    )
    side_by_side = [await open_world(worlds, verdicts, task) for _ in range(options.worlds)]
    print(f"memory: {memory_of(worlds, verdicts):.2f} GB for {len(side_by_side)} open worlds and both servers")
    for environment in side_by_side:
        await environment.close()
    worlds.stop()
    verdicts.stop()


async def open_world(worlds: BenchmarkProcess, verdicts: BenchmarkProcess, task: str) -> AppWorldEnvironment:
    environment = AppWorldEnvironment(worlds, verdicts)
    await environment.open(Task(task, "", {"benchmark_id": task}), seed=0)
    return environment


async def time_pairs(
    environment: AppWorldEnvironment, folder: Path, task: str, num_pairs: int
) -> tuple[list[float], list[float]]:
    """Seconds of each step, ours and the package's, whose own clock stands still."""
    ours, theirs = list[float](), list[float]()
    script, env = Path(__file__).with_name("package_steps.py"), {"PATH": os.environ["PATH"]}
    with BenchmarkPackage(folder, script, folder / WORLDS_ROOT, task, CODE, env=env) as package:
        for _ in range(num_pairs + 1):
            began = time.perf_counter()
            package.ask()
            theirs.append(time.perf_counter() - began)
            began = time.perf_counter()
            await environment.reply(ParsedTurn("", f"```python\n{CODE}\n```", ()))
            ours.append(time.perf_counter() - began)
    await environment.close()
    return ours[1:], theirs[1:]  # the first pair imports


def memory_of(*servers: BenchmarkProcess) -> float:
    """Gigabytes of the servers and their children; pages that they share count once."""
    pids = list[int]()
    for server in servers:
        pid = server._process.pid  # pyright: ignore
        pids += [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**20


if __name__ == "__main__":
    asyncio.run(main())
