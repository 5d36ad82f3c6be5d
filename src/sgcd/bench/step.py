"""B5: what SGCD adds to a step of GRPO, in forward passes of the teacher over the same rows."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sgcd.bench.figures import figure, most
from sgcd.bench.timing import fastest
from sgcd.contrast.mask import Literals
from sgcd.contrast.refer import Contrast, Referred
from sgcd.contrast.write import BuiltIn
from sgcd.credit.methods import Method
from sgcd.credit.methods.grpo import Grpo
from sgcd.credit.methods.sgcd import Sgcd
from sgcd.credit.settings import Sgcd as SgcdSettings
from sgcd.lab import policy as lab
from sgcd.learn.batch import grid
from sgcd.learn.clock import Clock, ModelThread
from sgcd.learn.contrasted import contrasted
from sgcd.learn.dense import Dense
from sgcd.learn.gradient import Gradient
from sgcd.learn.living import Living
from sgcd.learn.policy import Policy
from sgcd.learn.rows import ROOM
from sgcd.learn.teacher import after
from sgcd.learn.update import optimizer_of, update
from sgcd.recipe import Recipe
from sgcd.records import Reference, Rollout, Siblings, Task, Turn, Verdict

GROUPS, SIBLINGS, WRITTEN = 2, 2, 96
CHAT = lab.chat()
TURN, HEARD, PROMPT = 32, 16, 128
K = 20
NOBODY: Any = None


def large(vocabulary: int = 32_000) -> Any:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "head_dim": 64}
    heads: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4}
    made: Any = Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, max_position_embeddings=32_768, **shape, **heads))
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


def played_groups(groups: int, siblings: int, turns: int) -> list[Siblings]:
    return [
        Siblings(Task(f"t{g}", "action", {}), tuple(rollout(f"t{g}", s, turns) for s in range(siblings)))
        for g in range(groups)
    ]


def planned(room: int = ROOM) -> Recipe:
    told = {"version": 1, "steps": 1, "policy": {"start": "none"}, "environment": {"name": "lab"}}
    return Recipe.model_validate({**told, "method": {"name": "grpo"}, "scoring": {"shuffled": 0, "bytes": room}})


def contrast_of(plan: Recipe) -> Contrast:
    return Contrast(BuiltIn(), CHAT, plan.reference.budget, plan.reference.least)


def referred_of(played: list[Siblings]) -> list[Referred]:
    text = "\n".join(["what successful attempts check : find_user , get_booking , get_flight ."] * 6)
    return [Referred(g.task.id, Reference(g.task.id, text, "by hand"), "", Literals.of(["b12"])) for g in played]


def rows_of(played: list[Siblings]) -> list[Rollout]:
    """The rollouts as the teacher reads them."""
    contrast = contrast_of(planned())
    seen = [
        each
        for group, told in zip(played, referred_of(played), strict=True)
        for each in contrasted(group, told, contrast, 32_768)
    ]
    return [after(each.rollout, each.row) for each in seen if each.row is not None]


class Written:
    """References that are there already."""

    def __init__(self, referred: list[Referred]) -> None:
        self._referred = {each.task: each for each in referred}

    async def of(self, group: Siblings) -> Referred:
        return self._referred[group.task.id]


def steps(
    model: Any, groups: int, siblings: int, tokens: int, room: int = ROOM
) -> tuple[dict[str, Callable[[], None]], int]:
    """A step of each method and a forward pass of the teacher over the same rollouts; and how many tokens they have."""
    played = played_groups(groups, siblings, tokens // TURN)
    told: Any = Written(referred_of(played))
    plan, written = planned(room), sum(each.written for group in played for each in group.rollouts)
    contrast = contrast_of(plan)
    optimizer = optimizer_of(model, plan.optimizer)

    def step(method: Method) -> Callable[[], None]:
        thread = ModelThread()
        policy = Policy(model, CHAT)
        dense = Dense(
            plan, Living(NOBODY, policy, NOBODY, method, contrast, thread, NOBODY), Clock(thread, print_nothing)
        )

        def taken() -> None:
            how = plan.surrogate, plan.sampler.temperature, plan.optimizer.tokens, written, room
            gradient = Gradient(model, *how)
            asyncio.run(dense.of(1, played, told, gradient))
            update(optimizer, gradient, plan.optimizer, 1)

        return taken

    rows = [rows_of([group]) for group in played]

    def teacher() -> None:
        with torch.no_grad():
            for group in rows:
                laid = grid(group)
                model(input_ids=laid.ids, use_cache=False, logits_to_keep=laid.mask.any(0).nonzero().squeeze(-1))

    arms = {"grpo": step(Grpo()), "sgcd": step(Sgcd(SgcdSettings(name="sgcd", k=K))), "teacher": teacher}
    return arms, written


def print_nothing(_: str) -> None:
    """The clock tells nobody."""


def extra(best: dict[str, float]) -> float:
    """What SGCD adds to a step, in forward passes of the teacher."""
    return (best["sgcd"] - best["grpo"]) / best["teacher"]


def overhead(rounds: int) -> dict[str, Any]:
    best = fastest(steps(large(), GROUPS, SIBLINGS, WRITTEN)[0], rounds)
    case = most("random Qwen3, 4 layers, hidden 512, vocabulary 32,000", extra(best), 1.15)
    return {"B5": figure("(step of SGCD - step of GRPO) over one forward pass of the teacher", [case])}
