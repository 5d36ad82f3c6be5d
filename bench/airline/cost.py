"""Measures what an episode of the airline benchmark costs: time beside the package's own, memory, and what stays.

    python bench/airline/cost.py [--folder .venv-airline] [--pairs 20] [--side-by-side 64] [--episodes 1000]

An episode is a reset, one call and a verdict. Ours and the package's own take turns, so that other work on the machine
meets both.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median

from sgcd.act.environments.airline.description import Domain, airline_process, load_domain, server_variables
from sgcd.act.environments.benchmark_process import BenchmarkProcess, EpisodeClient

sys.path.append(str(Path(__file__).resolve().parents[1]))
from side_by_side.benchmark_package import BenchmarkPackage

CALL = {"name": "list_all_airports", "arguments": {}}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".venv-airline"))
    for name, default in (("pairs", 20), ("side-by-side", 64), ("episodes", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    domain, process = load_domain(options.folder, "airline"), airline_process(options.folder, "airline")
    await (await process.open_episode()).close()
    ours, theirs = await time_pairs(domain, process, options.folder, options.pairs)
    ratio = median(ours) / median(theirs)
    print(f"episode: {median(ours):.3f} s here, {median(theirs):.3f} s by the package, ratio {ratio:.2f}")
    print(f"memory: {await measure_memory(domain, process, options.side_by_side):.2f} GB for {options.side_by_side}")
    print(f"after {options.episodes} episodes: {await count_left(domain, process, options.episodes)}")
    process.stop()


async def time_pairs(
    domain: Domain, process: BenchmarkProcess, folder: Path, num_pairs: int
) -> tuple[list[float], list[float]]:
    """Seconds of each episode, ours and the package's."""
    ours, theirs = list[float](), list[float]()
    env = {**os.environ, **server_variables(folder)}
    with BenchmarkPackage(folder, Path(__file__).with_name("package_episodes.py"), env=env) as package:
        for number in range(num_pairs + 1):
            theirs.append(float(await asyncio.to_thread(package.ask)))
            began = time.perf_counter()
            await play_episode(domain, process, number)
            ours.append(time.perf_counter() - began)
    return ours[1:], theirs[1:]  # the first pair imports


async def play_episode(domain: Domain, process: BenchmarkProcess, number: int) -> None:
    episode = await process.open_episode()
    await use_episode(domain, episode, number)
    await episode.close()


async def use_episode(domain: Domain, episode: EpisodeClient, number: int) -> None:
    task = [*domain.tasks.values()][number % len(domain.tasks)]
    await episode.request("turn", text="", calls=[CALL])
    await episode.request("verdict", task=task.id, gold_hash=task.gold_hash)


async def measure_memory(domain: Domain, process: BenchmarkProcess, num_episodes: int) -> float:
    """Gigabytes of the benchmark's processes, shared pages counted once, with all episodes open and judged."""
    episodes = [await process.open_episode() for _ in range(num_episodes)]
    for number, episode in enumerate(episodes):
        await use_episode(domain, episode, number)
    pids = [server_pid(), *children(server_pid())]
    assert len(pids) == num_episodes + 1
    gigabytes = sum(proportional_kilobytes(pid) for pid in pids) / 1e6
    for episode in episodes:
        await episode.close()
    return gigabytes


def proportional_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def count_left(domain: Domain, process: BenchmarkProcess, num_episodes: int) -> str:
    """What there is more of than before: open files, threads, child processes, memory of the server."""
    before = await count_held()
    for number in range(num_episodes):
        await play_episode(domain, process, number)
    after = await count_held()
    return ", ".join(f"{after[name] - before[name]:+d} {name}" for name in before)


async def count_held() -> dict[str, int]:
    for _ in range(100):  # the last children end
        if children(server_pid()):
            await asyncio.sleep(0.1)
    return held_now()


def held_now() -> dict[str, int]:
    server = server_pid()
    server_pages = int(Path(f"/proc/{server}/statm").read_text().split()[1])
    return {
        "open files": len([*Path("/proc/self/fd").iterdir()]),
        "open files of the server": len([*Path(f"/proc/{server}/fd").iterdir()]),
        "threads": threading.active_count(),
        "child processes": len(children(server)),
        "MB of the server": server_pages * os.sysconf("SC_PAGESIZE") // 10**6,
    }


def server_pid() -> int:
    [pid] = children(os.getpid())
    return pid


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


if __name__ == "__main__":
    asyncio.run(main())
