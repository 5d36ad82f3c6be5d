"""Times arms in turn, measures peak memory, and holds figures against their targets."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

WARMUP_ROUNDS = 3
ALLOCATOR_ENV = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Makes malloc return freed memory to the system at once, so that resident memory is the memory in use."""
BenchArms = Mapping[str, Callable[[], object]]


def min_cpu_seconds(arms: BenchArms, rounds: int, warmup: int = WARMUP_ROUNDS) -> dict[str, float]:
    """The least CPU seconds of each arm in `rounds` rounds, after `warmup` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(warmup + rounds):
        for name, run in arms.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: min(samples[warmup:]) for name, samples in seconds.items()}


def median_cuda_seconds(arms: BenchArms, rounds: int, warmup: int = WARMUP_ROUNDS) -> dict[str, float]:
    """The median seconds of each arm by CUDA events, after `warmup` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(warmup + rounds):
        for name, run in arms.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            seconds[name].append(start.elapsed_time(end) / 1000)
    return {name: median(samples[warmup:]) for name, samples in seconds.items()}


def time_arms(arms: BenchArms, rounds: int, warmup: int = WARMUP_ROUNDS) -> dict[str, float]:
    """Seconds of each arm on the device that this machine has: by CUDA events, or of the processor."""
    timed = median_cuda_seconds if torch.cuda.is_available() else min_cpu_seconds
    return timed(arms, rounds, warmup)


def device_name() -> str:
    """Where a bench that takes CUDA where it is runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_in_new_process(*args: object) -> float:
    """The bytes that `python -m sgcd.bench.memory ARGS` prints: the peak memory of one arm."""
    command = [sys.executable, "-m", "sgcd.bench.memory", *map(str, args)]
    completed = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ALLOCATOR_ENV})
    return float(json.loads(completed.stdout))


def measure_peak_memory(run: Callable[[], object]) -> int:
    """Peak bytes of `run`, beyond the bytes that were in use before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")
    before = _read_status("VmRSS")
    run()
    return _read_status("VmHWM") - before


def _read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class BenchCase:
    """One number and its target."""

    name: str
    figure: float | None
    """None if it was not measured."""
    target: float
    is_minimum: bool
    """True if the target is a minimum, False if it is a maximum."""

    @property
    def is_passed(self) -> bool | None:
        if self.figure is None:
            return None
        return (
            self.figure >= self.target * (1 - _TOLERANCE)
            if self.is_minimum
            else self.figure <= self.target * (1 + _TOLERANCE)
        )

    @property
    def target_ratio(self) -> float:
        """Distance from the target; above one misses it."""
        if self.figure is None:
            return -1.0
        return self.target / max(self.figure, 1e-12) if self.is_minimum else self.figure / self.target

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "figure": self.figure,
            "target": self.target,
            "least": self.is_minimum,
            "pass": self.is_passed,
        }


def summarize_cases(title: str, cases: list[BenchCase], note: str = "") -> dict[str, Any]:
    """`figure` and `target` are those of the worst case, `pass` holds if all cases pass; `cases` has all of them."""
    measured = [case for case in cases if case.figure is not None]
    worst = max(measured, key=lambda case: case.target_ratio, default=None)
    return {
        "title": title,
        "figure": worst.figure if worst else None,
        "target": worst.target if worst else None,
        "pass": all(case.is_passed for case in measured) if measured else None,
        "cases": [case.to_json() for case in cases],
        "note": note,
    }


def at_most(name: str, value: float | None, target: float) -> BenchCase:
    return BenchCase(name, value, target, is_minimum=False)


def at_least(name: str, value: float | None, target: float) -> BenchCase:
    return BenchCase(name, value, target, is_minimum=True)
