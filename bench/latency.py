"""How much of the time that writers take does a step wait for? B8, with simulated latencies.

    python bench/latency.py [--json] [--steps 4] [--mean 1.0]

Whole runs of the lab by the trainer, twice from the same seed: references by the built-in writer at once, and the very
same references after a drawn latency each (log-normal around the mean). Both learn the same, so that what differs is
waiting. On a machine that does other work as well, two walls differ by more than that; the figure is therefore taken
from the run's own clock, which knows when a step does nothing but wait for writers (`seconds.reference`): (waited with
latencies - waited without) / sum of the latencies of the calls. The difference of the walls is given beside it. Groups
are asked for as soon as their last sibling has ended, and learnt from as soon as references are there; a step plays
cohorts of eight groups. In both ways of sampling; no step reads neighbours' references, which waits for all.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from step import Deaf

from sgcd.assemble import assemble
from sgcd.contrast.trace import Trace
from sgcd.contrast.write import write
from sgcd.learn.trainer import Trainer
from sgcd.recipe import dump, load
from sgcd.run import RunFolder

RECIPE = Path(__file__).resolve().parents[1] / "recipes/lab/sgcd.yaml"
TARGET = 0.10
SIGMA = 0.4
KEYS = ("siblings.groups=12", "sampler.slots=64", "scoring.shuffled=0", "evaluation.tasks=1", "evaluation.trials=0")


class Late:
    """The built-in writer, as far away as a model over the network."""

    name = "built-in"

    def __init__(self, mean: float) -> None:
        self.mean = mean
        self.latencies: list[float] = []
        self._draws = random.Random(0)

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        latency = self._draws.lognormvariate(0, SIGMA) * self.mean
        began = time.perf_counter()
        try:
            await asyncio.sleep(latency)
        finally:
            self.latencies.append(min(latency, time.perf_counter() - began))
        return write(traces)


def run(mode: str, steps: int, mean: float) -> tuple[float, float, list[float], bytes]:
    """Seconds of the steps, those of them that writers were waited for, the latencies, and the policy that came out."""
    recipe = load(RECIPE, [*KEYS, f"sampler.mode={mode}", f"steps={steps}", f"evaluation.every={steps + 1}"])
    writer = Late(mean)
    with tempfile.TemporaryDirectory() as place:
        built = assemble(recipe, threads=1)
        object.__setattr__(built.contrast, "writer", writer)
        folder = RunFolder.create(Path(place) / "run", dump(recipe), built.facts())
        trainer: Trainer = built.trainer(folder, Deaf())
        asyncio.run(trainer.run())
        rows = folder.metrics()
        seconds = sum(row["seconds"]["total"] - row["seconds"]["evaluation"] for row in rows)
        waited = sum(row["seconds"]["reference"] for row in rows)
        return seconds, waited, writer.latencies, (folder.policy_path / "model.safetensors").read_bytes()


def exposed(steps: int, mean: float) -> dict[str, Any]:
    """B8 for each way of sampling; the figure is the worse one."""
    torch.set_num_threads(1)
    run("lockstep", 1, 0.0)  # warm
    told: dict[str, Any] = {}
    for mode in ("lockstep", "free"):
        without, idle, _, policy = run(mode, steps, 0.0)
        late, waited, latencies, same = run(mode, steps, mean)
        told[mode] = {
            "wall": {"without": without, "with": late, "exposed": (late - without) / sum(latencies)},
            "waited": waited - idle,
            "calls": len(latencies),
            "latencies": sum(latencies),
            "exposed": (waited - idle) / sum(latencies),
            "same policy": policy == same,
        }
    figure = max(each["exposed"] for each in told.values())
    return {"figure": figure, "target": TARGET, "pass": figure <= 1.1 * TARGET, **told}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--mean", type=float, default=1.0)
    told = parser.parse_args()
    found = exposed(told.steps, told.mean)
    if told.json:
        print(json.dumps({"schema": 1, "steps": told.steps, "mean": told.mean, "B8": found}, indent=1))
    else:
        for mode in ("lockstep", "free"):
            each = found[mode]
            print(
                f"{mode}: {each['calls']} calls of {each['latencies']:.1f} s, {each['waited']:.1f} s waited for, "
                f"{each['exposed']:.3f}; by the walls {each['wall']['exposed']:.3f}"
            )
        print(f"B8 exposed reference latency: {found['figure']:.3f} (at most {TARGET})")
    return 0 if found["pass"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
