"""B6: our step of SGCD beside TRL's steps of GRPO and of SDPO (top-K), on identical recorded rollouts.

    .venv-trl/bin/python bench/peers.py [--json] [--rounds 5]      (make peers makes .venv-trl)

A random Qwen3 (4 layers, hidden 512) in float32 and 2 groups of 2 rollouts. A step begins with rollouts, their rewards
and what the teacher reads; it ends with the optimiser's. `bench/trl_steps.py` says how TRL's trainers are asked, and
`tests/peers` that both learn the same from the same tokens. Seconds of the processor, the fastest of the rounds, in
turn; memory is the peak of one step in a process of its own, beyond the model, its gradients and the optimiser's
moments. --json keeps the figures in docs/peers.json, or in the file that is named; `make performance` shows them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from trl_steps import (
    COMPLETION,
    GRPO,
    SDPO,
    SFT,
    build_trl_batch,
    build_trl_sft_step,
    build_trl_step,
    build_trl_trainer,
)

from sgcd.bench.step import (
    CREDIT_METHODS,
    GROUP_SIZE,
    IMITATE_METHODS,
    NUM_GROUPS,
    POLICY_TOKENS,
    TURN_TOKENS,
    build_bench_recipe,
    build_random_groups,
    build_small_qwen,
    build_step_arms,
)
from sgcd.bench.timing import (
    ALLOCATOR_ENV,
    WARMUP_ROUNDS,
    BenchCase,
    at_least,
    at_most,
    device_name,
    measure_peak_memory,
    summarize_cases,
    time_arms,
)
from sgcd.cli.commands.bench import describe_machine, format_case
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.supervised.trainer import accumulate_supervised
from sgcd.learn.training.optimizer import build_optimizer, optimizer_step
from sgcd.storage.provenance import package_version

_RESULTS_PATH = Path(__file__).resolve().parents[1] / "docs/peers.json"
SGCD_ARM, LOW_MEMORY_ARM = "SGCD", "SGCD with scoring.logits_bytes 64 MiB"
SUPERVISED_ARM = "sgcd sft"
PEER_ARMS = (SGCD_ARM, LOW_MEMORY_ARM, GRPO, COMPLETION, SDPO)
OWN_ARMS = {
    SGCD_ARM: ("sgcd", 2**30),
    LOW_MEMORY_ARM: ("sgcd", 2**26),
}
"""Method, and scoring.logits_bytes."""
OWN_ARMS |= {f"sgcd's {name}": (name, 2**30) for name in IMITATE_METHODS}
"""Those with a divergence in the loss, as SDPO has, are measured in memory alone."""
_NOTE = """Without Triton TRL's fused head makes logits of the prompt as well, and all of them twice; "over the
completion" is the same trainer without that head. TRL's SDPO has no mask for what tools said and distils the whole
completion. Its teacher is the policy itself, as ours is, and so is the divergence, with a tail, but on the student's
likeliest ids. Sizes with many tokens: the fastest of two rounds after one."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a step works on."""

    vocabulary: int
    num_policy_tokens: int

    @property
    def description(self) -> str:
        return f"vocabulary {self.vocabulary:,}, {self.num_policy_tokens} written tokens a rollout"


DEFAULT_SIZE, LARGE_SIZE, TINY_SIZE = (
    StepSize(32_000, POLICY_TOKENS),
    StepSize(151_936, 4 * POLICY_TOKENS),
    StepSize(500, TURN_TOKENS),
)
"""What B5 takes, too; the vocabulary of Qwen3 and longer rollouts; and whatever is enough to see that it runs."""


def build_peer_arm(name: str, size: StepSize) -> tuple[Any, Callable[[], None]]:
    """A model, and a step that moves it."""
    model = build_small_qwen(size.vocabulary).to(device_name())
    if name in OWN_ARMS:
        method, logits_bytes = OWN_ARMS[name]
        methods = {method: (CREDIT_METHODS | IMITATE_METHODS)[method]}
        num_tokens = size.num_policy_tokens
        arms, _ = build_step_arms(model, NUM_GROUPS, GROUP_SIZE, num_tokens, logits_bytes, methods=methods)
        return model, arms[method]
    trainer = build_trl_trainer(name, model, GROUP_SIZE)
    return model, build_trl_step(
        trainer, build_trl_batch(NUM_GROUPS, GROUP_SIZE, size.num_policy_tokens // TURN_TOKENS)
    )


def build_supervised_arm(name: str, size: StepSize) -> Callable[[], None]:
    """A supervised step on the same rollouts."""
    model = build_small_qwen(size.vocabulary).to(device_name())
    groups = build_random_groups(NUM_GROUPS, GROUP_SIZE, size.num_policy_tokens // TURN_TOKENS)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if name == SFT:
        return build_trl_sft_step(model, rollouts)
    settings = build_bench_recipe().optimizer
    optimizer = build_optimizer(model, settings)

    def step() -> None:
        gradient = accumulate_supervised(model, rollouts, ForwardConfig())
        optimizer_step(optimizer, gradient, settings, 1)

    return step


def measure_supervised(size: StepSize, rounds: int, warm: int) -> tuple[dict[str, float], BenchCase]:
    """Seconds of either step; both learn from the same tokens, so their ratio is that of tokens a second."""
    steps = {name: build_supervised_arm(name, size) for name in (SUPERVISED_ARM, SFT)}
    seconds = time_arms(steps, rounds, warm)
    name = f"{SFT} over {SUPERVISED_ARM}, time, {size.description}"
    return seconds, at_least(name, seconds[SFT] / seconds[SUPERVISED_ARM], 1.0)


def measure_step_memory(name: str, size: StepSize) -> int:
    """Bytes of one step, beyond the model, its gradients and the optimiser's moments."""
    model, step = build_peer_arm(name, size)
    step()  # the moments are there from then on
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    return measure_peak_memory(step)


def measure_memory_in_process(name: str, size: StepSize) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, str(size.vocabulary), str(size.num_policy_tokens)]
    completed = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **ALLOCATOR_ENV}
    )
    return float(completed.stdout.split()[-1])


def measure_step_size(
    size: StepSize, arms: Sequence[str], rounds: int, warm: int
) -> tuple[dict[str, Any], list[BenchCase]]:
    """Seconds and bytes, and what they come to."""
    print(f"measuring, {size.description}", file=sys.stderr)
    seconds = time_arms({name: build_peer_arm(name, size)[1] for name in arms}, rounds, warm)
    peak_bytes = {name: measure_memory_in_process(name, size) for name in (*OWN_ARMS, SDPO)}
    peers = [name for name in arms if name in (GRPO, COMPLETION)]
    cases = [
        at_most(f"SGCD over {name}, time, {size.description}", seconds[SGCD_ARM] / seconds[name], 1.40)
        for name in peers
    ]
    for name in OWN_ARMS:
        if name in seconds:
            cases.append(at_least(f"{SDPO}, over {name}, time, {size.description}", seconds[SDPO] / seconds[name], 1.3))
        wanted = 8 if name in seconds else 4
        cases.append(
            at_least(f"{SDPO}, over {name}, memory, {size.description}", peak_bytes[SDPO] / peak_bytes[name], wanted)
        )
    return {
        "vocabulary": size.vocabulary,
        "written": size.num_policy_tokens,
        "seconds": seconds,
        "bytes": peak_bytes,
    }, cases


def measure_peers(rounds: int, tiny: bool) -> dict[str, Any]:
    if tiny:
        parts = [measure_step_size(TINY_SIZE, PEER_ARMS, 1, 0)]
    else:
        parts = [
            measure_step_size(DEFAULT_SIZE, PEER_ARMS, rounds, WARMUP_ROUNDS),
            measure_step_size(LARGE_SIZE, (SGCD_ARM, LOW_MEMORY_ARM, SDPO), 2, 1),
        ]
    supervised, case = measure_supervised(*((TINY_SIZE, 1, 0) if tiny else (DEFAULT_SIZE, rounds, WARMUP_ROUNDS)))
    parts[0][0]["seconds"] |= supervised
    parts[0][1].append(case)
    title = "a step beside TRL's: 4 rollouts, random Qwen3, 4 layers, hidden 512, float32"
    b6 = summarize_cases(title, [case for _, cases in parts for case in cases], _NOTE.replace("\n", " "))
    machine_facts = describe_machine() | {name: package_version(name) for name in ("transformers", "trl")}
    conditions = {"date": date.today().isoformat(), "rounds": rounds}
    return {"schema": 1, "machine": machine_facts, **conditions, "sizes": [size for size, _ in parts], "B6": b6}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, nargs="?", const=_RESULTS_PATH, metavar="FILE")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs; no figures to be kept")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        name, *size = args.memory
        print(measure_step_memory(name, StepSize(*map(int, size))))
        return 0
    answer = measure_peers(args.rounds, args.tiny)
    if args.json:
        args.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    for case in answer["B6"]["cases"]:
        print(format_case(case))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
