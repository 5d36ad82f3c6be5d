"""A step of SGCDTrainer over one of TRL's GRPOTrainer: CPU time and peak memory, on the same scripted rollouts.

Runs in .venv-trl: `.venv-trl/bin/python bench/trainers/trl_step.py`. Each arm is a process of its own; arms take turns.
It keeps its figures in docs/trainers.json.
"""

import json
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "tests")]

from performance import keep_trainer_figures

from sgcd.bench.step_tables import TRAINER_CASES

ROUNDS = 3
ARMS = ("grpo", "sgcd")
FIGURES = {"seconds": "trl_time", "peak": "trl_memory"}


def run_arm(arm: str) -> None:
    """Steps of one arm; prints CPU seconds a step after the first, and the peak resident size in MB."""
    import time

    from trl import GRPOConfig, GRPOTrainer

    from helpers import trl_runs
    from sgcd.trl import SGCDConfig, SGCDTrainer

    with TemporaryDirectory() as folder:
        cls, config = (GRPOTrainer, GRPOConfig) if arm == "grpo" else (SGCDTrainer, SGCDConfig)
        trainer = trl_runs.build_trainer(Path(folder), cls, config, steps=6, hidden_size=256, layers=6)
        ends: list[float] = []
        step = trainer.training_step

        def timed(*args: object, **kwargs: object) -> object:
            result = step(*args, **kwargs)
            ends.append(time.process_time())
            return result

        trainer.training_step = timed
        trainer.train()
    seconds = median(end - start for start, end in pairwise(ends))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main() -> None:
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for _ in range(ROUNDS):
        for arm in ARMS:
            command = [sys.executable, __file__, arm]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            found[arm].append(json.loads(ended.stdout.splitlines()[-1]))
    ratios = {
        name: min(one[name] for one in found["sgcd"]) / min(one[name] for one in found["grpo"]) for name in FIGURES
    }
    for name, ratio in ratios.items():
        words, goal = TRAINER_CASES[FIGURES[name]]
        verdict = "pass" if ratio <= goal else "near" if ratio <= 1.1 * goal else "miss"
        print(f"{words}: {ratio:.2f}, at most {goal}: {verdict}")
    keep_trainer_figures(**{FIGURES[name]: ratio for name, ratio in ratios.items()})


if __name__ == "__main__":
    run_arm(sys.argv[1]) if sys.argv[1:] else main()
