"""Measures what a step of TextWorld costs through our environment, beside the package's own.

    python bench/textworld/cost.py [--folder .venv-textworld] [--games 60]

The steps are the walkthroughs of the test games. Ours and the package's take turns, so that other work on the machine
meets both.
"""

import argparse
import asyncio
import json
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import IO, cast

from sgcd.act.environments.benchmark_process import BenchmarkProcess
from sgcd.act.environments.textworld import TextWorldEnvironment, game_task, textworld_process
from sgcd.records import Call, ParsedTurn


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".venv-textworld"))
    parser.add_argument("--games", type=int, default=60)
    options = parser.parse_args()
    package, process = start_package(options.folder), textworld_process(options.folder)
    paths, answers = cast(IO[str], package.stdin), cast(IO[str], package.stdout)
    ours, theirs = list[float](), list[float]()
    for number in range(options.games):
        paths.write(f"{options.folder}/games/test-{number}.z8\n")
        paths.flush()
        theirs.append(json.loads(await asyncio.to_thread(answers.readline))[0])
        ours.append(await time_steps(process, f"test-{number}"))
    ratio = median(mine / its for mine, its in zip(ours, theirs, strict=True))
    print(f"walkthrough: {median(ours) * 1e3:.1f} ms here, {median(theirs) * 1e3:.1f} ms by the package")
    print(f"ratio: median {ratio:.2f}, of the sums {sum(ours) / sum(theirs):.2f}")
    paths.close()
    process.stop()


def start_package(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [folder / "bin/python", "-P", Path(__file__).with_name("package_steps.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


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
