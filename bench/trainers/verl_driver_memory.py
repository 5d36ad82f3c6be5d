"""Whether the memory of verl's driver grows with the steps: its resident memory after each step of a run of the lab.

Runs in .venv-verl: `.venv-verl/bin/python bench/trainers/verl_driver_memory.py`. Ray on this machine, gloo, and a
Hugging Face model in place of verl's server, as in tests/on_verl.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "bench")]

from performance import keep_trainer_figures  # noqa: E402

from helpers.verl_runs import RECIPE, ray_processes, start_sgcd, wait_for_step  # noqa: E402

FIRST = 3
"""From this step on the driver holds all that it keeps."""


def resident_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    found: list[float] = []
    with TemporaryDirectory() as folder:
        run, home = Path(folder) / "run", Path(folder) / "home"
        keys = [f"steps={steps}", "evaluation={tasks: 1, trials: 0, every: 1000}", "checkpoint.every=1000"]
        process = start_sgcd(home, "train", *RECIPE, "--run", str(run), *keys)
        for step in range(1, steps + 1):
            wait_for_step(process, run, step)
            [pid] = [pid for pid, command in ray_processes(home) if "TaskRunner" in command]
            found.append(resident_megabytes(pid))
        process.communicate(timeout=600)
    print(json.dumps({"megabytes": found, "verl_driver_memory": found[-1] / found[FIRST - 1]}))
    keep_trainer_figures(verl_driver_memory=found[-1] / found[FIRST - 1])


if __name__ == "__main__":
    main()
