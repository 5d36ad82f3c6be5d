"""What does credit cost where Python decides? A step of SGCD beside a step of GRPO, and segments and weights alone.

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

from sgcd.bench.step import CHAT, HEARD, TURN, extra, rollout, steps
from sgcd.bench.timing import fastest
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.lab import policy as lab
from sgcd.records import Features, Rollout

CREDIT = 1.5
"""Seconds that credit may take."""


def segmented(rollouts: int = 64, tokens: int = 16_384) -> Callable[[], None]:
    """Divergences as they are: mostly nothing, with a heavy tail."""
    draws = np.random.default_rng(2)
    method, batch = Sgcd(SgcdSettings(name="sgcd")), list[tuple[Rollout, Features]]()
    for sibling in range(rollouts):
        played = rollout("t", sibling, tokens // (TURN + HEARD))
        size = len(played.response)
        d, h = draws.lognormal(-5, 1.8, size), draws.lognormal(-2, 1, size)
        batch.append((played, Features(*(numbers.astype(np.float32) for numbers in (d, h, d)))))

    def credited() -> None:
        for played, features in batch:
            method.explain(played, 1.0, features, played.mask)

    return credited


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    torch.set_num_threads(1)
    best = fastest(steps(lab.model(0, CHAT.size).eval(), 8, 8, 2 * TURN)[0], told.rounds)
    credit = fastest({"credit": segmented()}, told.rounds)["credit"]
    found = {**best, "over_grpo": best["sgcd"] / best["grpo"], "extra": extra(best), "credit": credit}
    if told.json:
        print(json.dumps(found))
    else:
        print(
            f"with the lab's policy a step of SGCD takes {found['over_grpo']:.2f} of GRPO's: {found['extra']:.2f} "
            f"forward passes of the teacher more\n"
            f"segments and weights of 64 rollouts of 16k tokens: {credit:.2f} s (at most {CREDIT} wanted)"
        )
    return 0 if credit <= CREDIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
