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
from trl_steps import COMPLETION, GRPO, SDPO, recorded, step_of, trainer_of

from sgcd.assemble import version_of
from sgcd.bench.figures import Case, figure, least, most
from sgcd.bench.step import GROUPS, SIBLINGS, TURN, WRITTEN, large, steps
from sgcd.bench.timing import ALONE, WARM, fastest, peak
from sgcd.cli.benching import line, machine

KEPT = Path(__file__).resolve().parents[1] / "docs/peers.json"
OURS, FRUGAL = "SGCD", "SGCD with scoring.bytes 64 MiB"
ARMS = (OURS, FRUGAL, GRPO, COMPLETION, SDPO)
ROOMS = {OURS: 2**30, FRUGAL: 2**26}
NOTE = """Without Triton TRL's fused head makes logits of the prompt as well, and all of them twice; "over the
completion" is the same trainer without that head. TRL's SDPO has no mask for what tools said and distils the whole
completion. Its teacher is the policy itself, as ours is, and so is the divergence, with a tail, but on the student's
likeliest ids. Sizes with many tokens: the fastest of two rounds after one."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a step works on."""

    vocabulary: int
    written: int

    @property
    def told(self) -> str:
        return f"vocabulary {self.vocabulary:,}, {self.written} written tokens a rollout"


USUAL, LONG, TINY = Size(32_000, WRITTEN), Size(151_936, 4 * WRITTEN), Size(500, TURN)
"""What B5 takes, too; the vocabulary of Qwen3 and longer rollouts; and whatever is enough to see that it runs."""


def arm_of(name: str, size: Size) -> tuple[Any, Callable[[], None]]:
    """A model, and a step that moves it."""
    model = large(size.vocabulary)
    if name in ROOMS:
        return model, steps(model, GROUPS, SIBLINGS, size.written, ROOMS[name])[0]["sgcd"]
    trainer = trainer_of(name, model, SIBLINGS)
    return model, step_of(trainer, recorded(GROUPS, SIBLINGS, size.written // TURN))


def memory(name: str, size: Size) -> int:
    """Bytes of one step, beyond the model, its gradients and the optimiser's moments."""
    model, step = arm_of(name, size)
    step()  # the moments are there from then on
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-9)
    return peak(step)


def elsewhere(name: str, size: Size) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, str(size.vocabulary), str(size.written)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **ALONE})
    return float(told.stdout.split()[-1])


def measured(size: Size, arms: Sequence[str], rounds: int, warm: int) -> tuple[dict[str, Any], list[Case]]:
    """Seconds and bytes, and what they come to."""
    print(f"measuring, {size.told}", file=sys.stderr)
    took = fastest({name: arm_of(name, size)[1] for name in arms}, rounds, warm)
    held = {name: elsewhere(name, size) for name in (OURS, FRUGAL, SDPO)}
    peers = [name for name in arms if name in (GRPO, COMPLETION)]
    cases = [most(f"SGCD over {name}, time, {size.told}", took[OURS] / took[name], 1.40) for name in peers]
    for name in ROOMS:
        cases.append(least(f"{SDPO}, over {name}, time, {size.told}", took[SDPO] / took[name], 1.3))
        cases.append(least(f"{SDPO}, over {name}, memory, {size.told}", held[SDPO] / held[name], 8))
    return {"vocabulary": size.vocabulary, "written": size.written, "seconds": took, "bytes": held}, cases


def found(rounds: int, tiny: bool) -> dict[str, Any]:
    if tiny:
        parts = [measured(TINY, ARMS, 1, 0)]
    else:
        parts = [measured(USUAL, ARMS, rounds, WARM), measured(LONG, (OURS, FRUGAL, SDPO), 2, 1)]
    title = "a step beside TRL's: 4 rollouts, random Qwen3, 4 layers, hidden 512, float32"
    told = figure(title, [case for _, cases in parts for case in cases], NOTE.replace("\n", " "))
    where = machine() | {name: version_of(name) for name in ("transformers", "trl")}
    taken = {"date": date.today().isoformat(), "rounds": rounds}
    return {"schema": 1, "machine": where, **taken, "sizes": [size for size, _ in parts], "B6": told}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, nargs="?", const=KEPT, metavar="FILE")
    parser.add_argument("--tiny", action="store_true", help="only to see that it runs; no figures to be kept")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    told = parser.parse_args()
    torch.set_num_threads(1)
    if told.memory:
        name, *size = told.memory
        print(memory(name, Size(*map(int, size))))
        return 0
    answer = found(told.rounds, told.tiny)
    if told.json:
        told.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    for case in answer["B6"]["cases"]:
        print(line(case))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
