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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from trl_steps import COMPLETION, GRPO, SDPO, recorded, step_of, trainer_of

from sgcd.assemble import version_of
from sgcd.bench.figures import Case, figure, least, most
from sgcd.bench.step import GROUPS, SIBLINGS, TURN, WRITTEN, large, steps
from sgcd.bench.timing import fastest, peak
from sgcd.cli.benching import line, machine
from sgcd.learn.rows import ROOM

KEPT = Path(__file__).resolve().parents[1] / "docs/peers.json"
OURS = "SGCD"
ARMS = (OURS, GRPO, COMPLETION, SDPO)
SMALL = 2**26
"""A budget of 64 MiB for logits, as in B3."""
ALONE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""What is freed goes back to the system at once, so that resident memory is what is held."""
NOTE = """Without Triton TRL's fused head also makes logits of the prompt, and makes all of them twice; the step over the
logits of the completion alone is TRL's without that head. TRL's SDPO knows no mask for what tools said: it distils all
of the completion. Its teacher is the policy itself, as ours is. Memory at 32,000 is of 4 rollouts of 96 written tokens,
at 151,936 (the vocabulary of Qwen3) of 384; both have half as much again between them and prompts of 128."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a step works on."""

    vocabulary: int
    written: int

    @property
    def told(self) -> str:
        return f"vocabulary {self.vocabulary:,}"


SIZES = {"usual": Size(32_000, WRITTEN), "long": Size(151_936, 4 * WRITTEN), "tiny": Size(1_000, TURN)}


def arm_of(name: str, size: Size, room: int = ROOM) -> tuple[Any, Callable[[], None]]:
    """A model, and a step that moves it."""
    model = large(size.vocabulary)
    if name == OURS:
        return model, steps(model, GROUPS, SIBLINGS, size.written, room)[0]["sgcd"]
    trainer = trainer_of(name, model, SIBLINGS)
    return model, step_of(trainer, recorded(GROUPS, SIBLINGS, size.written // TURN))


def memory(name: str, size: Size, room: int) -> int:
    """Bytes of one step, beyond the model, its gradients and the optimiser's moments."""
    model, step = arm_of(name, size, room)
    step()  # the moments are there from then on
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    return peak(step)


def elsewhere(name: str, size: str, room: int) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--size", size, "--room", str(room)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **ALONE})
    return float(told.stdout.split()[-1])


def measured(rounds: int, short: str, long: str) -> dict[str, Any]:
    """B6 with all that it is made of; `short` and `long` name sizes."""
    print("measuring seconds", file=sys.stderr)
    took = fastest({name: arm_of(name, SIZES[short])[1] for name in ARMS}, rounds)
    held = dict[str, dict[str, float]]()
    for size in (short, long):
        print(f"measuring memory, {SIZES[size].told}", file=sys.stderr)
        held[size] = {name: elsewhere(name, size, ROOM) for name in ARMS}
        held[size]["SGCD, 64 MiB"] = elsewhere(OURS, size, SMALL)
    cases = [most(f"SGCD over {name}, time", took[OURS] / took[name], 1.40) for name in (GRPO, COMPLETION)]
    cases += [least(f"{SDPO}, over SGCD, time", took[SDPO] / took[OURS], 1.3)]
    cases += [each for size in (short, long) for each in memories(SIZES[size].told, held[size])]
    title = f"a step beside TRL's, random Qwen3, 4 layers, hidden 512, {SIZES[short].told}"
    return {"seconds": took, "bytes": held, "B6": figure(title, cases, NOTE.replace("\n", " "))}


def memories(told: str, held: dict[str, float]) -> list[Case]:
    name = f"{SDPO}, over SGCD, memory, {told}, scoring.bytes"
    return [
        least(f"{name} {ROOM:,}", held[SDPO] / held[OURS], 8),
        least(f"{name} {SMALL:,}", held[SDPO] / held["SGCD, 64 MiB"], 8),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, nargs="?", const=KEPT, metavar="FILE")
    parser.add_argument("--tiny", action="store_true", help="whether it runs, in a minute; no figures to be kept")
    parser.add_argument("--memory", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--room", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    torch.set_num_threads(1)
    if told.memory:
        print(memory(told.memory, SIZES[told.size], told.room))
        return 0
    found = measured(told.rounds, *(("tiny", "tiny") if told.tiny else ("usual", "long")))
    where = machine() | {name: version_of(name) for name in ("transformers", "trl")}
    answer = {"schema": 1, "machine": where, "date": date.today().isoformat(), "rounds": told.rounds, **found}
    if told.json:
        told.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    for case in answer["B6"]["cases"]:
        print(line(case))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
