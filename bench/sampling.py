"""Measures how many tokens the sampler samples per CPU second, against one padded `generate` call per turn.

    python bench/sampling.py [--json] [--rounds 5] [--tasks 16] [--siblings 8] [--mode lockstep]
    python bench/sampling.py --keep [--rounds 1]

Both sides play the same conversations with the same number of slots. These come from demonstrations of lab tasks: the
policy reads the same prompts and replies, and samples as many tokens as each demonstrated turn has. `generate` gets the
whole history each turn, padded on the left, and samples until the longest turn is full. Rounds alternate, and the
fastest round of each side counts. --keep measures a random model of 135M weights in conversations of fixed lengths, and
keeps the figures in docs/sampling.json for docs/performance.md.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from sgcd.bench.step import build_model_of_135m
from sgcd.cli.commands.bench import describe_machine
from sgcd.lab import policy as lab
from sgcd.lab.demonstrate import NOISY, Script, encode_demonstration, play_script
from sgcd.lab.tasks import generate_tasks
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import TokenIds

_MIN_SPEEDUP = 1.2
_CHAT_WITHOUT_END: Any = SimpleNamespace(end_ids=frozenset())


@dataclass(frozen=True, slots=True)
class ScriptedTurn:
    """The ids that the policy reads, and the number of tokens that it samples then."""

    new_ids: TokenIds
    num_tokens: int


Conversation = Sequence[ScriptedTurn]


@dataclass(frozen=True, slots=True)
class SamplingCase:
    """Siblings of some tasks, and the lengths of what they read and sample."""

    name: str
    tasks: int = 1
    siblings: int = 8
    common: int = 0
    """Tokens with which the prompts of all tasks begin."""
    own: int = 256
    """Tokens of the prompt that are the task's own."""
    turns: int = 1
    sampled: int = 32
    """Tokens that a turn samples."""
    reply: int = 32
    """Tokens of an observation between two turns."""


CASES = (
    SamplingCase("8 siblings, prompt of 256, one turn of 32"),
    SamplingCase("8 siblings, prompt of 256, three turns of 32", turns=3),
    SamplingCase("4 tasks of 2 siblings, prompts of 512 + 64, one turn of 32", 4, 2, 512, 64),
)


def build_conversations(tasks: int, siblings: int) -> list[Conversation]:
    """Conversations with the lengths of demonstrations in the lab."""
    chat = lab.build_lab_chat()
    rng = np.random.Generator(np.random.Philox(1))
    scripts: list[Conversation] = []
    for task in generate_tasks("train")[:tasks]:
        for _ in range(siblings):
            rollout = encode_demonstration(asyncio.run(play_script(task, Script(task, NOISY, rng))), chat)
            replies = [rollout.response[a.stop : b.start] for a, b in pairwise(rollout.turns)]
            new_ids_by_turn = [rollout.prompt, *replies]
            scripts.append(
                [
                    ScriptedTurn(new, turn.stop - turn.start)
                    for new, turn in zip(new_ids_by_turn, rollout.turns, strict=True)
                ]
            )
    return scripts


def sampler_arm(model: Any, scripts: list[Conversation], mode: Literal["lockstep", "continuous"]) -> Callable[[], None]:
    async def play_one(cohort: Any, index: int) -> None:
        session = cohort.session(index, index)
        for turn in scripts[index]:
            sampled = await session.sample(turn.new_ids, turn.num_tokens)
            assert len(sampled.token_ids) == turn.num_tokens
        session.close()

    async def play_all(thread: ThreadPoolExecutor) -> None:
        sampler = TorchSampler(model, _CHAT_WITHOUT_END, SamplerSettings(mode=mode, slots=len(scripts)), thread)
        async with sampler.cohort(len(scripts)) as cohort:
            await asyncio.gather(*(play_one(cohort, index) for index in range(len(scripts))))

    def play() -> None:
        with ThreadPoolExecutor(1) as thread:
            asyncio.run(play_all(thread))

    return play


def generate_arm(model: Any, scripts: list[Conversation]) -> Callable[[], None]:
    def play() -> None:
        histories: list[list[int]] = [[] for _ in scripts]
        for turn_index in range(max(map(len, scripts))):
            active = [index for index, turns in enumerate(scripts) if len(turns) > turn_index]
            for index in active:
                histories[index] += scripts[index][turn_index].new_ids.tolist()
            width = max(len(histories[index]) for index in active)
            ids = torch.zeros((len(active), width), dtype=torch.long, device=model.device)
            attention_mask = torch.zeros_like(ids)
            for row, index in enumerate(active):
                ids[row, width - len(histories[index]) :] = torch.tensor(histories[index])
                attention_mask[row, width - len(histories[index]) :] = 1
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=attention_mask,
                    max_new_tokens=max(scripts[index][turn_index].num_tokens for index in active),
                    do_sample=True,
                    top_k=0,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            for row, index in enumerate(active):
                histories[index] += out[row, width : width + scripts[index][turn_index].num_tokens].tolist()

    return play


def continuous_batching_arm(model: Any, scripts: list[Conversation]) -> Callable[[], None]:
    """The paged cache of transformers, which finds equal blocks of prompts; each request asks for its own length."""
    config = GenerationConfig(do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=0, max_new_tokens=1)
    limits = ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=2048)

    def play() -> None:
        histories: list[list[int]] = [[] for _ in scripts]
        with model.continuous_batching_context_manager(config, continuous_batching_config=limits) as manager:
            for turn_index in range(max(map(len, scripts))):
                active = [index for index, turns in enumerate(scripts) if len(turns) > turn_index]
                for index in active:
                    turn = scripts[index][turn_index]
                    histories[index] += turn.new_ids.tolist()
                    name = f"{index} {turn_index}"
                    manager.add_request(histories[index], request_id=name, max_new_tokens=turn.num_tokens)
                for _ in active:
                    result = manager.get_result()
                    histories[int(result.request_id.split()[0])] += result.generated_tokens

    return play


def build_fixed_conversations(case: SamplingCase) -> list[Conversation]:
    """Conversations of drawn ids; siblings have one prompt, and the prompts of all tasks begin alike."""
    rng = np.random.default_rng(3)

    def draw(num_tokens: int) -> TokenIds:
        return rng.integers(3, 40_000, num_tokens).astype(np.int32)

    beginning, scripts = draw(case.common), list[Conversation]()
    for _ in range(case.tasks):
        prompt = np.concatenate([beginning, draw(case.own)])
        for _ in range(case.siblings):
            replies = [draw(case.reply) for _ in range(case.turns - 1)]
            scripts.append([ScriptedTurn(new, case.sampled) for new in (prompt, *replies)])
    return scripts


def measure_cases(rounds: int) -> list[dict[str, Any]]:
    """Random weights in the shape of SmolLM2-135M, each case in all arms."""
    model = build_model_of_135m().eval()
    model.generation_config.eos_token_id = None
    results: list[dict[str, Any]] = []
    for case in CASES:
        speeds = measure_speeds(model, build_fixed_conversations(case), rounds, warmup=0)
        results.append({"case": case.name, **speeds})
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    return results


def measure_sampling(
    rounds: int, tasks: int, *, siblings: int, mode: Literal["lockstep", "continuous"]
) -> dict[str, float]:
    model = lab.build_lab_model(0, lab.build_lab_chat().vocab_size).eval()
    model.generation_config.eos_token_id = None
    return measure_speeds(model, build_conversations(tasks, siblings), rounds, mode=mode)


def measure_speeds(
    model: Any,
    scripts: list[Conversation],
    rounds: int,
    *,
    mode: Literal["lockstep", "continuous"] = "lockstep",
    warmup: int = 1,
) -> dict[str, float]:
    """Sampled tokens a CPU second of each arm, the fastest of its rounds, which alternate."""
    num_tokens = sum(turn.num_tokens for turns in scripts for turn in turns)
    arms = {
        "sampler": sampler_arm(model, scripts, mode),
        "generate": generate_arm(model, scripts),
        "continuous batching": continuous_batching_arm(model, scripts),
    }
    best = dict.fromkeys(arms, float("inf"))
    for round_index in range(rounds + warmup):
        for name, play in arms.items():
            start = time.process_time()
            play()
            if round_index >= warmup:
                best[name] = min(best[name], time.process_time() - start)
    speed = {name: num_tokens / seconds for name, seconds in best.items()}
    return {"tokens": num_tokens, "rollouts": len(scripts), **speed, "ratio": speed["sampler"] / speed["generate"]}


def keep_figures(rounds: int) -> None:
    from performance import SAMPLING, write_json, write_page

    measured = {"machine": describe_machine(), "date": date.today().isoformat(), "rounds": rounds}
    write_json(SAMPLING, {"schema": 1, **measured, "cases": measure_cases(rounds)})
    write_page()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--keep", action="store_true", help="measure a larger model, for docs/performance.md")
    parser.add_argument("--mode", choices=["lockstep", "continuous"], default="lockstep")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.keep:
        keep_figures(args.rounds)
        return 0
    result = measure_sampling(args.rounds, args.tasks, siblings=args.siblings, mode=args.mode)
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['sampler']:,.0f} tokens per CPU second by the sampler, {result['generate']:,.0f} by generate, "
            f"{result['continuous batching']:,.0f} by transformers' continuous batching: "
            f"{result['ratio']:.2f} times as many as generate (at least {_MIN_SPEEDUP} wanted), "
            f"{result['rollouts']:.0f} rollouts"
        )
    return 0 if result["ratio"] >= _MIN_SPEEDUP else 1


if __name__ == "__main__":
    raise SystemExit(main())
