"""What does credit cost? A step of SGCD beside a step of GRPO on the same rollouts, and segments and weights alone.

    python bench/credit.py [--json] [--rounds 5] [--groups 2] [--siblings 4] [--written 192]

A step is what happens once rollouts and references are there: scoring, credit and the update of a random Qwen3 (4
layers, hidden 512, vocabulary 32k), without diagnostic passes. What SGCD adds is given in forward passes of the teacher
over the same rows. The three alternate; the fastest of each counts, in seconds of the processor.

The same is measured with the lab's policy, 8 groups of 8 short rollouts, where Python decides: it has no target.
Segments and weights are those of 64 rollouts of 16k tokens, from features that are there already.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sgcd.contrast.mask import Literals
from sgcd.contrast.refer import Contrast, Referred
from sgcd.contrast.write import BuiltIn
from sgcd.credit.methods import Method
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.lab import policy as lab
from sgcd.learn.batch import Example
from sgcd.learn.clock import Clock, ModelThread
from sgcd.learn.contrasted import contrasted
from sgcd.learn.dense import Dense
from sgcd.learn.living import Living
from sgcd.learn.policy import Policy
from sgcd.learn.scoring import forwards
from sgcd.learn.teacher import after
from sgcd.learn.update import optimizer_of, update
from sgcd.recipe import Recipe
from sgcd.records import Features, Reference, Rollout, Siblings, Task, Turn, Verdict

STEP, CREDIT = 1.25, 1.5
"""Forward passes of the teacher that SGCD may add to a step, and seconds that credit may take."""
CHAT = lab.chat()
TURN, HEARD, PROMPT = 32, 16, 128
K = 20
NOBODY: Any = None


def large() -> Any:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "head_dim": 64}
    heads: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4}
    made: Any = Qwen3ForCausalLM(Qwen3Config(vocab_size=32_000, max_position_embeddings=32_768, **shape, **heads))
    return made.eval()


def rollout(task: str, sibling: int, turns: int) -> Rollout:
    """Turns of the policy, with what it heard between them."""
    draws = np.random.default_rng([sibling, *task.encode()])
    mask = np.tile(np.repeat([True, False], [TURN, HEARD]), turns)
    return Rollout(
        task=task,
        category="action",
        sibling=sibling,
        seed=sibling,
        prompt=draws.integers(0, CHAT.size, PROMPT).astype(np.int32),
        insert_at=PROMPT // 2,
        response=draws.integers(0, CHAT.size, len(mask)).astype(np.int32),
        mask=mask,
        kinds=np.where(mask, 2, 0).astype(np.uint8),
        sampled_logp=np.zeros(len(mask), np.float32),
        turns=tuple(Turn(start, start + TURN) for start in range(0, len(mask), TURN + HEARD)),
        messages=(),
        tools=(),
        ending="answered",
        verdict=Verdict(float(sibling % 2), bool(sibling % 2)),
    )


def steps(model: Any, groups: int, siblings: int, written: int) -> tuple[dict[str, Callable[[], None]], int]:
    """A step of each method and a forward pass of the teacher over the same rollouts; and how many tokens they have."""
    played = [
        Siblings(Task(f"t{g}", "action", {}), tuple(rollout(f"t{g}", s, written // TURN) for s in range(siblings)))
        for g in range(groups)
    ]
    text = "\n".join(["what successful attempts check : find_user , get_booking , get_flight ."] * 6)
    referred = [Referred(g.task.id, Reference(g.task.id, text, "by hand"), "", Literals.of(["b12"])) for g in played]
    told = {"version": 1, "steps": 1, "policy": {"start": "none"}, "environment": {"name": "lab"}}
    plan = Recipe.model_validate({**told, "method": {"name": "grpo"}, "scoring": {"shuffled": 0}})
    contrast = Contrast(BuiltIn(), CHAT, plan.reference.budget, plan.reference.least)
    optimizer = optimizer_of(model, plan.optimizer)

    def step(method: Method) -> Callable[[], None]:
        thread = ModelThread()
        policy = Policy(model, CHAT)
        dense = Dense(
            plan, Living(NOBODY, policy, NOBODY, method, contrast, thread, NOBODY), Clock(thread, print_nothing)
        )

        def taken() -> None:
            done = asyncio.run(dense.of(1, played, referred))
            batch = [
                Example(d.rollout, d.credit.token_advantage, p) for d, p in zip(done.deserved, done.logp, strict=True)
            ]
            update(model, optimizer, batch, plan.surrogate, plan.optimizer, plan.sampler.temperature, 1)

        return taken

    seen = contrasted(played, referred, contrast, 32_768)
    rows = [after(each.rollout, each.row) for each in seen if each.row is not None]

    def teacher() -> None:
        with torch.no_grad():
            for _ in forwards(model, rows, plan.scoring.tokens):
                pass

    arms = {"grpo": step(Grpo()), "sgcd": step(Sgcd(SgcdSettings(name="sgcd", k=K))), "teacher": teacher}
    return arms, sum(each.rollout.written for each in seen)


def print_nothing(_: str) -> None:
    """The clock tells nobody."""


def fastest(arms: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(arms, float("inf"))
    for number in range(rounds + 1):
        for name, run in arms.items():
            start = time.process_time()
            run()
            if number:  # the first round only warms up
                best[name] = min(best[name], time.process_time() - start)
    return best


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


def measure(rounds: int, groups: int, siblings: int, written: int) -> dict[str, float]:
    arms, tokens = steps(large(), groups, siblings, written)
    best = fastest(arms, rounds)
    small = fastest(steps(lab.model(0, CHAT.size).eval(), 8, 8, 2 * TURN)[0], rounds)
    credit = fastest({"credit": segmented()}, rounds)["credit"]
    over = {"over_grpo": best["sgcd"] / best["grpo"], "lab_over_grpo": small["sgcd"] / small["grpo"]}
    return {"tokens": tokens, **best, **over, "extra": extra(best), "lab_extra": extra(small), "credit": credit}


def extra(best: dict[str, float]) -> float:
    """What SGCD adds to a step, in forward passes of the teacher."""
    return (best["sgcd"] - best["grpo"]) / best["teacher"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--siblings", type=int, default=4)
    parser.add_argument("--written", type=int, default=192)
    told = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(told.rounds, told.groups, told.siblings, told.written)
    if told.json:
        print(json.dumps(found))
    else:
        print(
            f"a step of SGCD takes {found['over_grpo']:.2f} of GRPO's over {found['tokens']:.0f} written tokens: "
            f"{found['extra']:.2f} forward passes of the teacher more (at most {STEP} wanted)\n"
            f"with the lab's policy {found['lab_over_grpo']:.2f} of GRPO's: {found['lab_extra']:.2f} more\n"
            f"segments and weights of 64 rollouts of 16k tokens: {found['credit']:.2f} s (at most {CREDIT} wanted)"
        )
    return 0 if found["extra"] <= STEP and found["credit"] <= CREDIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
