"""Measures what a replay of BFCL's gold calls costs through our environment, beside the package's own.

    python bench/bfcl/cost.py [--folder .venv-bfcl] [--rounds 3] [--side-by-side 8]

Ours and the package's take turns, 100 tasks at a time, so that other work on the machine meets both. Processor time
counts this process and the server's. Ours play side by side, as rollouts do.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.bfcl.description import BfclTask, bfcl_process, load_bfcl
from sgcd.act.environments.bfcl.setup import play_gold_calls

sys.path.append(str(Path(__file__).resolve().parents[1]))
from side_by_side.benchmark_package import BenchmarkPackage


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".venv-bfcl"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side-by-side", type=int, default=8)
    options = parser.parse_args()
    tasks, process = load_bfcl(options.folder), bfcl_process(options.folder)
    with BenchmarkPackage(options.folder, Path(__file__).with_name("package_replays.py")) as package:
        for _ in range(options.rounds):
            sums = [0.0] * 6
            for start in range(0, len(tasks), 100):
                part = [*tasks.values()][start : start + 100]
                question = json.dumps([task.id for task in part])
                theirs = json.loads(await asyncio.to_thread(package.ask, question))
                ours = await replay(tasks, process, part, options.side_by_side)
                sums = [total + value for total, value in zip(sums, [*ours, *theirs], strict=True)]
            report_round(sums)
    process.stop()


def report_round(sums: list[float]) -> None:
    wall, cpu, right, package_wall, package_cpu, package_right = sums
    print(f"right: {right:.0f} here, {package_right:.0f} by the package")
    print(f"wall time: {wall:.2f} s here, {package_wall:.2f} s by the package, ratio {wall / package_wall:.2f}")
    print(f"processor time: {cpu:.2f} s here, {package_cpu:.2f} s by the package, ratio {cpu / package_cpu:.2f}")


async def replay(
    tasks: dict[str, BfclTask], process: BenchmarkProcess, part: list[BfclTask], side_by_side: int
) -> list[float]:
    """Wall time, processor time and how many are right."""
    began, used = time.perf_counter(), processor_seconds(process)
    waiting, rewards = iter(part), list[float]()

    async def play_on() -> None:
        for task in waiting:
            rewards.append(await play_gold_calls(tasks, process, task))

    await asyncio.gather(*(play_on() for _ in range(side_by_side)))
    return [time.perf_counter() - began, processor_seconds(process) - used, rewards.count(1.0)]


def processor_seconds(process: BenchmarkProcess) -> float:
    """Seconds of this process, the server and its children, to the server's hundredth."""
    server = process._process  # pyright: ignore[reportPrivateUsage]
    if server is None:
        return time.process_time()
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return time.process_time() + sum(map(process_ticks, [str(server.pid), *children])) / os.sysconf("SC_CLK_TCK")


def process_ticks(pid: str) -> int:
    """User and system time of a process, from the fields after its name."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    asyncio.run(main())
