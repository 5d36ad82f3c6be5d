"""Measures what credit costs with the lab's small policy: a step of SGCD and of GRPO, and segments and weights alone.

    python bench/credit.py [--json] [--rounds 5]

A step is what happens once rollouts and references are there: scoring, credit and the update, with the lab's policy, 8
groups of 8 short rollouts, without diagnostic passes. What SGCD adds is given in forward passes of the teacher over the
same rows. The three alternate; the fastest of each counts, in seconds of the processor. `sgcd bench` has the same for
a larger policy (B5), with a target.

Segments and weights are those of 64 rollouts of 16k tokens, from features that are there already.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch

from sgcd.bench.step import (
    CHAT,
    OBSERVATION_TOKENS,
    TURN_TOKENS,
    build_random_rollout,
    build_step_arms,
    teacher_overhead,
)
from sgcd.bench.timing import min_cpu_seconds
from sgcd.credit.methods import CreditInputs
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import SgcdSettings as SgcdSettings
from sgcd.credit_records import OWN_REFERENCE, Features
from sgcd.lab import policy as lab
from sgcd.records import Rollout

_MAX_CREDIT_SECONDS = 1.5
"""Seconds that credit may take."""


def build_credit_task(rollouts: int = 64, tokens: int = 16_384) -> Callable[[], None]:
    """Divergences as they are: mostly nothing, with a heavy tail."""
    rng = np.random.default_rng(2)
    method, batch = Sgcd(SgcdSettings(name="sgcd")), list[tuple[Rollout, Features]]()
    for sibling in range(rollouts):
        recorded = build_random_rollout("t", sibling, tokens // (TURN_TOKENS + OBSERVATION_TOKENS))
        size = len(recorded.response)
        d, h = rng.lognormal(-5, 1.8, size), rng.lognormal(-2, 1, size)
        batch.append((recorded, Features(*(values.astype(np.float32) for values in (d, h, d)))))

    def assign_all() -> None:
        for recorded, features in batch:
            method.assign_credit(CreditInputs(recorded, 1.0, {OWN_REFERENCE: features}, recorded.response_mask))

    return assign_all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    arms, _ = build_step_arms(lab.build_lab_model(0, CHAT.vocab_size).eval(), 8, 8, 2 * TURN_TOKENS)
    best = min_cpu_seconds({name: arms[name] for name in ("grpo", "sgcd", "teacher")}, args.rounds)
    credit = min_cpu_seconds({"credit": build_credit_task()}, args.rounds)["credit"]
    figures = {**best, "over_grpo": best["sgcd"] / best["grpo"], "extra": teacher_overhead(best), "credit": credit}
    if args.json:
        print(json.dumps(figures))
    else:
        print(
            f"with the lab's policy a step of SGCD takes {figures['over_grpo']:.2f} of GRPO's: {figures['extra']:.2f} "
            f"forward passes of the teacher more\n"
            f"segments and weights of 64 rollouts of 16k tokens: {credit:.2f} s (at most {_MAX_CREDIT_SECONDS} wanted)"
        )
    return 0 if credit <= _MAX_CREDIT_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
