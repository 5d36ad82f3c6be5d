"""A whole step of SGCD on the real 135M model, with common prefixes computed once and with each row by itself: B9.

    python bench/cost/real_step.py [--prompt 1500] [--rounds 1] [--model examples/real/model]

One group of siblings plays three turns of fixed lengths with the model's own sampler, a lookup after each but the last;
every other sibling counts as a success. Then the teacher reads them with a reference, the student learns, and the
optimizer moves the weights. CPU seconds by part; both ways alternate and play the same rollouts. The figures go into
docs/real-step.json. `make real` makes the model.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sgcd.bench.step import CREDIT_METHODS, build_bench_recipe, build_random_rollout, build_step, ignore_phase
from sgcd.bench.timing import measure_peak_memory
from sgcd.chat import Chat
from sgcd.cli.commands.bench import describe_machine
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.learn.policy.load import load_trainable_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.scoring import student, teacher
from sgcd.learn.scoring.logits.logprob_gradient import LogprobFunction
from sgcd.learn.settings import PolicySettings, SamplerSettings
from sgcd.learn.training.optimizer import build_optimizer
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.records import Group, Rollout, Task, TokenIds, Turn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from performance import REAL_STEP, write_json, write_page

_ROOT = Path(__file__).resolve().parents[2]
_SIBLINGS, _TURNS, _SAMPLED, _OBSERVED = 8, 3, 80, 30
_MICRO_BATCH_TOKENS = 4096
_PARTS: tuple[str, ...] = ("sampling", "tools", "teacher", "student", "head", "credit", "update")
_ENDLESS: Any = SimpleNamespace(end_ids=frozenset())
_STOCK = {f"item-{number}": {"shelf": number % 7, "left": 3 * number % 11} for number in range(200)}


class HeadClock:
    """Seconds in the head and its statistics, apart from the backbone: of the teacher, and of the student both ways."""

    def __init__(self) -> None:
        self.teacher = self.student = 0.0

    def timed(self, work: Callable[..., Any], who: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                setattr(self, who, getattr(self, who) + time.perf_counter() - began)

        return run

    def install(self) -> None:
        teacher.topk_stats = self.timed(teacher.topk_stats, "teacher")
        student.logprobs_with_grad = self.timed(student.logprobs_with_grad, "student")
        LogprobFunction.backward = staticmethod(self.timed(LogprobFunction.backward, "student"))


def look_up(chat: Chat, sibling: int, turn: int) -> TokenIds:
    """A tool's answer as the policy reads it."""
    answer = json.dumps({name: _STOCK[name] for name in [f"item-{17 * sibling + turn}", *list(_STOCK)[:3]]})
    ids = np.array(chat.encode_text(answer), np.int32)
    return np.resize(ids, _OBSERVED)


def play_group(policy: Any, prompt: TokenIds, seconds: dict[str, float]) -> Group:
    """Siblings of one prompt; tools take the time between two turns."""

    async def play_one(cohort: Any, index: int) -> tuple[TokenIds, np.ndarray]:
        session, new_ids = cohort.session(index, index), prompt
        ids, masks = list[TokenIds](), list[np.ndarray]()
        for turn in range(_TURNS):
            sampled = await session.sample(new_ids, _SAMPLED)
            ids.append(sampled.token_ids)
            masks.append(np.ones(_SAMPLED, np.bool_))
            if turn + 1 < _TURNS:
                began = time.perf_counter()
                new_ids = look_up(policy.chat, index, turn)
                seconds["tools"] += time.perf_counter() - began
                ids.append(new_ids)
                masks.append(np.zeros(_OBSERVED, np.bool_))
        session.close()
        return np.concatenate(ids), np.concatenate(masks)

    async def play_all() -> list[tuple[TokenIds, np.ndarray]]:
        with ModelThread() as thread:
            sampler = TorchSampler(policy.model, _ENDLESS, SamplerSettings(slots=_SIBLINGS), thread)
            async with sampler.cohort(_SIBLINGS) as cohort:
                return await asyncio.gather(*(play_one(cohort, index) for index in range(_SIBLINGS)))

    began = time.perf_counter()
    played = asyncio.run(play_all())
    seconds["sampling"] = time.perf_counter() - began - seconds["tools"]
    rollouts = [build_rollout(sibling, prompt, *one) for sibling, one in enumerate(played)]
    return Group(Task("t", "action", {}), tuple(rollouts))


def build_rollout(sibling: int, prompt: TokenIds, response: TokenIds, mask: np.ndarray) -> Rollout:
    starts = range(0, len(response), _SAMPLED + _OBSERVED)
    return replace(
        build_random_rollout("t", sibling, _TURNS),
        prompt=prompt,
        reference_position=len(prompt) // 2,
        response=response,
        response_mask=mask,
        token_kinds=np.where(mask, 2, 0).astype(np.uint8),
        sampling_logprobs=np.zeros(len(response), np.float32),
        turns=tuple(Turn(start, start + _SAMPLED) for start in starts),
    )


def measure_step(policy: Any, prompt: TokenIds, share: bool, clock: HeadClock) -> dict[str, Any]:
    """Seconds of each part of a step, and the peak of memory beyond model, gradients and moments."""
    recipe = build_bench_recipe()
    scoring = recipe.scoring.model_copy(update={"share": share, "micro_batch_tokens": _MICRO_BATCH_TOKENS})
    training = recipe.optimizer.model_copy(update={"micro_batch_tokens": _MICRO_BATCH_TOKENS})
    recipe = recipe.model_copy(update={"scoring": scoring, "optimizer": training})
    seconds: dict[str, float] = dict.fromkeys(_PARTS, 0.0)
    group = play_group(policy, prompt, seconds)
    timer = StepTimer(ModelThread(), ignore_phase)
    builder = ReferenceBuilder(BuiltInWriter(), policy.chat, recipe.reference.budget, recipe.reference.min_tokens)
    optimizer = build_optimizer(policy.model, recipe.optimizer)
    run = build_step(
        policy.model, [group], CREDIT_METHODS["sgcd"], recipe=recipe, optimizer=optimizer, timer=timer, contrast=builder
    )
    clock.teacher = clock.student = 0.0
    gc.collect()
    timer.pop_seconds()
    peak = measure_peak_memory(run)
    spent = timer.pop_seconds()
    seconds["head"] = clock.teacher + clock.student
    seconds["teacher"] = spent["teacher"] - clock.teacher
    seconds["student"] = spent["training"] - clock.student
    seconds["credit"] = spent["credit"] + spent["reference"]
    seconds["update"] = spent["other"]
    return {"seconds": seconds, "bytes": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", type=Path, default=_ROOT / "examples/real/model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # also for the timer of a step: other work on the machine must not count
    settings = PolicySettings(start=str(args.model), tool_instruction="Tools:\n{tools}\nCall one like this:\n{call}")
    policy, clock = load_trainable_policy(settings), HeadClock()
    clock.install()
    text = "You run a supply desk. Find the item, then hand out what was asked for, or all that is left. " * 200
    prompt = np.array(policy.chat.encode_text(text), np.int32)[: args.prompt]
    ways = {"shared": True, "alone": False}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    weights = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    for _ in range(args.rounds):
        for name, share in ways.items():
            policy.model.load_state_dict(weights)
            found[name].append(measure_step(policy, prompt, share, clock))
            print(name, json.dumps(found[name][-1]), file=sys.stderr, flush=True)
    best = {name: min(steps, key=lambda step: sum(step["seconds"].values())) for name, steps in found.items()}
    measured = {"machine": describe_machine(), "date": date.today().isoformat(), "rounds": args.rounds}
    written = _TURNS * _SAMPLED
    note = (
        f"SmolLM2-135M-Instruct, float32, {_SIBLINGS} siblings, prompt of {len(prompt)} tokens, responses of "
        f"{written + (_TURNS - 1) * _OBSERVED} of which {written} are written, micro-batches of {_MICRO_BATCH_TOKENS} "
        f"tokens. CPU seconds, the best of {args.rounds}; the ways alternate. Sampling is the same in both: it shares "
        "the prompt's prefill anyway. The student is its forward and backward pass without the head."
    )
    write_json(REAL_STEP, {"schema": 1, **measured, "note": note, **best})
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
