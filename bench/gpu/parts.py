"""The parts of `make gpu`; each prints its figures as JSON lines as soon as it knows them: parts.py PART [--tiny]."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sgcd.bench.arms import build_head_inputs, run_naive, score_two_contexts
from sgcd.bench.memory import HIDDEN_SIZE, VOCAB_SIZE, measure_head, measure_rollout
from sgcd.bench.scoring import build_scoring_arms, measure_errors, speed_ratios
from sgcd.bench.step import (
    GROUP_SIZE,
    NUM_GROUPS,
    POLICY_TOKENS,
    build_model_of_135m,
    build_random_groups,
    build_small_qwen,
    build_step_arms,
    teacher_overhead,
)
from sgcd.bench.timing import device_name, measure_peak_memory, time_arms
from sgcd.cli.commands.bench import describe_machine
from sgcd.learn.scoring.forward import ForwardConfig, score_logprobs
from sgcd.learn.scoring.logits.logprob_gradient import logprobs_with_grad
from sgcd.learn.scoring.logits.stats import topk_stats

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "bench"), str(Path(__file__).parent)]

Figures = Iterator[dict[str, Any]]
_KERNEL_TESTS = ("tests/learn/test_kernel.py", "tests/learn/test_tiles.py")
_MODEL_4B_HIDDEN = 2560
_SMALL_LOGITS_BYTES = 3 * 2**24


def run_kernel_tests(tiny: bool) -> Figures:
    """The tests of the CUDA kernel: as compiled where CUDA is, line by line elsewhere."""
    chosen = ["-k", "three_numbers and 129"] if tiny else ["-m", "slow or not slow"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_KERNEL_TESTS, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = (done.stdout.strip().splitlines() or [done.stderr[-500:]])[-1]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|skipped|error)", summary)}
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    yield {"summary": summary, **counts, "failures": failures[:20]}
    if done.returncode:
        sys.exit(f"kernel tests: {summary}")


def measure_scoring(tiny: bool) -> Figures:
    """B1 to B4 on this device, at the size of a 4B model."""
    tokens, hidden, vocabulary = (64, 32, 1000) if tiny else (8192, _MODEL_4B_HIDDEN, VOCAB_SIZE)
    dtype = torch.float32 if tiny else torch.bfloat16
    inputs = build_head_inputs(tokens, hidden, vocabulary, dtype=dtype, device=device_name())
    seconds = time_arms(build_scoring_arms(inputs, min(tokens, 1024)), rounds=1 if tiny else 5)
    yield {"B1 and B2": speed_ratios(seconds), "seconds": seconds, "tokens": tokens}
    del inputs
    yield {"B4": measure_errors(device_name(), 2000 if tiny else 65_536)["B4"]["cases"]}
    if not tiny:
        peaks = {
            f"{arm}, {rows} tokens": measure_head(arm, rows, _SMALL_LOGITS_BYTES)
            for arm, rows in (("ours", 512), ("ours", 1024), ("naive", 1024))
        }
        yield {"B3, bytes": peaks, "float32, hidden": HIDDEN_SIZE}
        rollout = {arm: measure_rollout(arm, _SMALL_LOGITS_BYTES) for arm in ("backbone", "scored")}
        yield {"B3, an 8k-token rollout, bytes": rollout}


def measure_step(tiny: bool) -> Figures:
    """B5 on this device, and how far log-probabilities are from those of the processor."""
    model = build_small_qwen(500 if tiny else 32_000).to(device_name())
    arms, tokens = build_step_arms(model, NUM_GROUPS, GROUP_SIZE, POLICY_TOKENS)
    seconds = time_arms({name: arms[name] for name in ("grpo", "sgcd", "teacher")}, 1 if tiny else 5)
    yield {"B5": teacher_overhead(seconds), "seconds": seconds, "tokens": tokens}
    rollouts = [one for group in build_random_groups(1, 2, 2) for one in group.rollouts]
    here, there = (
        torch.cat([torch.from_numpy(one) for one in score_logprobs(model.to(device), rollouts, ForwardConfig())])
        for device in (device_name(), "cpu")
    )
    yield {"largest difference of a log-probability from the processor's": float((here - there).abs().max())}


def measure_peers(tiny: bool) -> Figures:
    """B6: bench/peers.py, with the interpreter that has TRL."""
    beside = ROOT / ".venv-trl/bin/python"
    python = sys.executable if find_spec("trl") else beside
    if not Path(python).exists():
        yield {"not run": "TRL is not here: make peers"}
        return
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "peers.json"
        options = ["--tiny"] if tiny else ["--rounds", "3"]
        command = [python, ROOT / "bench/peers.py", *options, "--json", kept]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield json.loads(kept.read_text())


def measure_sampling_here(tiny: bool) -> Figures:
    """Tokens a second of wall time, by the sampler in both modes and by generate."""
    from sampling import build_conversations, generate_arm, sampler_arm

    model: Any = build_small_qwen(1000) if tiny else build_model_of_135m().to(torch.bfloat16)
    model = model.to(device_name()).eval()
    model.generation_config.eos_token_id = None
    for tasks in (1,) if tiny else (8, 32):
        scripts = build_conversations(tasks, 2 if tiny else 8)
        num_tokens = sum(turn.num_tokens for turns in scripts for turn in turns)
        arms = {
            "lockstep": sampler_arm(model, scripts, "lockstep"),
            "continuous": sampler_arm(model, scripts, "continuous"),
            "generate": generate_arm(model, scripts),
        }
        speeds: dict[str, float] = {}
        for name, play in arms.items():
            play()  # warm
            began = time.perf_counter()
            play()
            speeds[name] = num_tokens / (time.perf_counter() - began)
        yield {"rollouts": len(scripts), "tokens": num_tokens, "tokens a second": speeds}


def measure_long_context(tiny: bool) -> Figures:
    """The head over a context of 32k tokens and a vocabulary of 248k: both contexts, and a gradient."""
    tokens, hidden, vocabulary = (96, 32, 1000) if tiny else (32_768, _MODEL_4B_HIDDEN, VOCAB_SIZE)
    inputs = build_head_inputs(tokens, hidden, vocabulary, dtype=torch.bfloat16, device=device_name())
    logits_bytes = 2**30

    def gradient() -> None:
        leaf = inputs.student.clone().requires_grad_()
        logprobs_with_grad(leaf, inputs.head, inputs.observed, logits_bytes=logits_bytes)[0].sum().backward()

    arms: dict[str, Callable[[], object]] = {
        "top 100 of the teacher": lambda: topk_stats(inputs.teacher, inputs.head, inputs.observed, k=100),
        "two contexts, top 20": lambda: score_two_contexts(inputs, logits_bytes),
        "gradient": gradient,
        "the naive way, 1024 tokens at a time": lambda: run_naive(inputs, 1024),
    }
    yield {"tokens": tokens, "vocabulary": vocabulary, "all logits in float32, GB": tokens * vocabulary * 4 / 1e9}
    for name, run in arms.items():
        peak = measure_peak_memory(run)
        yield {"arm": name, "seconds": time_arms({name: run}, 1, 0 if tiny else 1)[name], "peak, GB": peak / 1e9}


def run_real_model(tiny: bool) -> Figures:
    from real_model import run_example

    yield from run_example(tiny)


PARTS: dict[str, Callable[[bool], Figures]] = {
    "kernel": run_kernel_tests,
    "head": measure_scoring,
    "step": measure_step,
    "peers": measure_peers,
    "sampling": measure_sampling_here,
    "long": measure_long_context,
    "real": run_real_model,
}


def main() -> None:
    name, *options = sys.argv[1:]
    print(json.dumps({"machine": describe_machine()}), flush=True)
    for figures in PARTS[name]("--tiny" in options):
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
