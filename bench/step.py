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
from sgcd.recipe.load import load_recipe
from sgcd.recipe.schema import dump_recipe
from sgcd.storage.run_folder import RunFolder

_GRPO_RECIPE = Path(__file__).resolve().parents[1] / "recipes/lab/grpo.yaml"
_MAX_OTHER_SHARE, _MAX_FOURFOLD_COST = 0.15, 4.4
_WORK_PHASES = ("sampling", "scoring", "training")
_EVALUATION_PHASE = "evaluation"

Row = dict[str, Any]


class SilentCallback:
    """Watches nothing."""

    def on_phase(self, name: str) -> None: ...

    def on_step(self, row: Mapping[str, Any]) -> None: ...

    def on_evaluation(self, summary: Mapping[str, Any]) -> None: ...


def run_steps(groups: int, steps: int) -> tuple[float, list[Row]]:
    """CPU seconds of a run, and its metrics."""
    keys = [f"siblings.groups={groups}", f"steps={steps}", "evaluation.tasks=1", "evaluation.trials=0"]
    recipe = load_recipe(_GRPO_RECIPE, [*keys, f"evaluation.every={steps}", "sampler.slots=512"])
    with tempfile.TemporaryDirectory() as temp_dir:
        context = assemble(recipe, threads=1)
        folder = RunFolder.create(Path(temp_dir) / "run", dump_recipe(recipe), context.collect_facts())
        started = time.process_time()
        asyncio.run(context.trainer(folder, SilentCallback()).run())
        return time.process_time() - started, folder.read_metrics()


def other_share(metrics: list[Row]) -> float:
    """Of a step's wall time, what is neither sampling nor scoring nor training."""
    total = sum(row["seconds"]["total"] - row["seconds"][_EVALUATION_PHASE] for row in metrics)
    return 1 - sum(row["seconds"][name] for row in metrics for name in _WORK_PHASES) / total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    run_steps(8, 1)  # warm
    costs: dict[int, list[float]] = {8: [], 32: []}
    shares: list[float] = []
    for _ in range(args.rounds):
        for groups in costs:
            seconds, metrics = run_steps(groups, args.steps)
            costs[groups].append(seconds / sum(row["rollouts"] for row in metrics))
            shares += [other_share(metrics)] if groups == 8 else []
    fourfold = 4 * min(costs[32]) / min(costs[8])
    figures = {
        "share elsewhere": {"figure": min(shares), "target": _MAX_OTHER_SHARE, "pass": min(shares) <= _MAX_OTHER_SHARE},
        "cost of 4x the rollouts": {
            "figure": fourfold,
            "target": _MAX_FOURFOLD_COST,
            "pass": fourfold <= _MAX_FOURFOLD_COST,
        },
    }
    if args.json:
        print(json.dumps({"schema": 1, "steps": args.steps, "rounds": args.rounds, **figures}, indent=1))
    else:
        for name, figure in figures.items():
            print(f"{name}: {figure['figure']:.3f} (at most {figure['target']}) {'pass' if figure['pass'] else 'FAIL'}")
    return 0 if all(figure["pass"] for figure in figures.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
