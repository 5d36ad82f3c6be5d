"""Measures what a step of TextWorld costs through our environment, beside the package's own.

    python bench/textworld/cost.py [--folder .venv-textworld] [--games 60]

The steps are the walkthroughs of the test games. Ours and the package's take turns, so that other work on the machine
meets both.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import median

from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.textworld import TextWorldEnvironment, game_task, textworld_process
from sgcd.records import Call, ParsedTurn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from side_by_side.benchmark_package import BenchmarkPackage


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".venv-textworld"))
    parser.add_argument("--games", type=int, default=60)
    options = parser.parse_args()
    process = textworld_process(options.folder)
    ours, theirs = list[float](), list[float]()
    with BenchmarkPackage(options.folder, Path(__file__).with_name("package_steps.py")) as package:
        for number in range(options.games):
            game = f"{options.folder}/games/test-{number}.z8"
            theirs.append(json.loads(await asyncio.to_thread(package.ask, game))[0])
            ours.append(await time_steps(process, f"test-{number}"))
    ratio = median(mine / its for mine, its in zip(ours, theirs, strict=True))
    print(f"walkthrough: {median(ours) * 1e3:.1f} ms here, {median(theirs) * 1e3:.1f} ms by the package")
    print(f"ratio: median {ratio:.2f}, of the sums {sum(ours) / sum(theirs):.2f}")
    process.stop()


async def time_steps(process: BenchmarkProcess, name: str) -> float:
    """Seconds of the walkthrough's steps."""
    environment = TextWorldEnvironment(process, admissible=False)
    await environment.open(game_task(name), seed=0)
    began = time.perf_counter()
    for command in environment.walkthrough:
        await environment.reply(ParsedTurn("", "", (Call("play", {"command": command}),)))
    seconds = time.perf_counter() - began
    await environment.close()
    return seconds


if __name__ == "__main__":
    asyncio.run(main())
