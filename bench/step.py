"""Where does a step spend its time, and what do four times the rollouts cost? Whole runs of the lab, by the trainer.

    python bench/step.py [--json] [--steps 6] [--rounds 3]

Runs of 8 and of 32 groups alternate, in this process, without evaluation. The share is of wall time by the run's own
clock (`seconds` in metrics.jsonl); the cost of a step is CPU time, the least over rounds. A step's first groups are
looked for by its own look-ahead, so the cost is taken per rollout played and scaled to four times of them.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sgcd.assemble import assemble
from sgcd.recipe import dump, load
from sgcd.run import RunFolder

RECIPE = Path(__file__).resolve().parents[1] / "recipes/lab/grpo.yaml"
SHARE, FOURFOLD = 0.15, 4.4
WORK = ("sampling", "scoring", "training")
HELD_OUT = "evaluation"

Row = dict[str, Any]


class Deaf:
    """Watches nothing."""

    def on_phase(self, name: str) -> None: ...

    def on_step(self, row: Mapping[str, Any]) -> None: ...

    def on_evaluation(self, summary: Mapping[str, Any]) -> None: ...


def run(groups: int, steps: int) -> tuple[float, list[Row]]:
    """CPU seconds of a run, and its metrics."""
    keys = [f"siblings.groups={groups}", f"steps={steps}", "evaluation.tasks=1", "evaluation.trials=0"]
    recipe = load(RECIPE, [*keys, f"evaluation.every={steps}", "sampler.slots=512"])
    with tempfile.TemporaryDirectory() as place:
        built = assemble(recipe, threads=1)
        folder = RunFolder.create(Path(place) / "run", dump(recipe), built.facts())
        began = time.process_time()
        asyncio.run(built.trainer(folder, Deaf()).run())
        return time.process_time() - began, folder.metrics()


def share(metrics: list[Row]) -> float:
    """Of a step's wall time, what is neither sampling nor scoring nor training."""
    total = sum(row["seconds"]["total"] - row["seconds"][HELD_OUT] for row in metrics)
    return 1 - sum(row["seconds"][name] for row in metrics for name in WORK) / total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(1)
    run(8, 1)  # warm
    costs: dict[int, list[float]] = {8: [], 32: []}
    shares: list[float] = []
    for _ in range(told.rounds):
        for groups in costs:
            seconds, metrics = run(groups, told.steps)
            costs[groups].append(seconds / sum(row["rollouts"] for row in metrics))
            shares += [share(metrics)] if groups == 8 else []
    fourfold = 4 * min(costs[32]) / min(costs[8])
    figures = {
        "share elsewhere": {"figure": min(shares), "target": SHARE, "pass": min(shares) <= SHARE},
        "cost of 4x the rollouts": {"figure": fourfold, "target": FOURFOLD, "pass": fourfold <= FOURFOLD},
    }
    if told.json:
        print(json.dumps({"schema": 1, "steps": told.steps, "rounds": told.rounds, **figures}, indent=1))
    else:
        for name, found in figures.items():
            print(f"{name}: {found['figure']:.3f} (at most {found['target']}) {'pass' if found['pass'] else 'FAIL'}")
    return 0 if all(found["pass"] for found in figures.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
