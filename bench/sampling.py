"""How fast is the sampler? Tokens sampled per CPU second on the lab's episodes, beside one padded `generate` a turn.

    python bench/sampling.py [--json] [--rounds 5] [--tasks 16] [--siblings 8] [--mode lockstep]

Both sides play the same conversations with as many slots: what demonstrations of lab tasks say to the policy, turn by
turn, and as many tokens from the policy as the demonstration's turn has. `generate` gets the whole history each turn,
padded on the left, and samples until the longest turn is full. Rounds alternate; the fastest of each side counts.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch

from sgcd.lab import policy as lab
from sgcd.lab.demonstrate import NOISY, Script, enact, tokens
from sgcd.lab.tasks import tasks_of
from sgcd.learn.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Ids

TARGET = 1.2
NO_END: Any = SimpleNamespace(ends=frozenset())


@dataclass(frozen=True, slots=True)
class Turn:
    """What the policy gets to read, and how many tokens it then says."""

    new: Ids
    count: int


Conversation = Sequence[Turn]


def conversations(tasks: int, siblings: int) -> list[Conversation]:
    """The shapes of demonstrations in the lab, siblings side by side."""
    chat = lab.chat()
    rng = np.random.Generator(np.random.Philox(1))
    made: list[Conversation] = []
    for task in tasks_of("train")[:tasks]:
        for _ in range(siblings):
            rollout = tokens(asyncio.run(enact(task, Script(task, NOISY, rng))), chat)
            between = [rollout.response[a.stop : b.start] for a, b in pairwise(rollout.turns)]
            heard = [rollout.prompt, *between]
            made.append([Turn(new, turn.stop - turn.start) for new, turn in zip(heard, rollout.turns, strict=True)])
    return made


def by_sampler(model: Any, told: list[Conversation], mode: Literal["lockstep", "free"]) -> Callable[[], None]:
    async def one(cohort: Any, index: int) -> None:
        session = cohort.session(index, index)
        for turn in told[index]:
            sampled = await session.sample(turn.new, turn.count)
            assert len(sampled.ids) == turn.count
        session.close()

    async def all_of_them(thread: ThreadPoolExecutor) -> None:
        sampler = TorchSampler(model, NO_END, SamplerSettings(mode=mode, slots=len(told)), thread)
        async with sampler.cohort(len(told)) as cohort:
            await asyncio.gather(*(one(cohort, index) for index in range(len(told))))

    def play() -> None:
        with ThreadPoolExecutor(1) as thread:
            asyncio.run(all_of_them(thread))

    return play


def by_generate(model: Any, told: list[Conversation]) -> Callable[[], None]:
    def play() -> None:
        histories: list[list[int]] = [[] for _ in told]
        for number in range(max(map(len, told))):
            going = [index for index, turns in enumerate(told) if len(turns) > number]
            for index in going:
                histories[index] += told[index][number].new.tolist()
            width = max(len(histories[index]) for index in going)
            ids = torch.zeros((len(going), width), dtype=torch.long)
            there = torch.zeros_like(ids)
            for row, index in enumerate(going):
                ids[row, width - len(histories[index]) :] = torch.tensor(histories[index])
                there[row, width - len(histories[index]) :] = 1
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=there,
                    max_new_tokens=max(told[index][number].count for index in going),
                    do_sample=True,
                    top_k=0,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            for row, index in enumerate(going):
                histories[index] += out[row, width : width + told[index][number].count].tolist()

    return play


def measure(rounds: int, tasks: int, siblings: int, mode: Literal["lockstep", "free"]) -> dict[str, float]:
    told = conversations(tasks, siblings)
    count = sum(turn.count for turns in told for turn in turns)
    model = lab.model(0, lab.chat().size).eval()
    model.generation_config.eos_token_id = None
    arms = {"sampler": by_sampler(model, told, mode), "generate": by_generate(model, told)}
    best = dict.fromkeys(arms, float("inf"))
    for number in range(rounds + 1):
        for name, play in arms.items():
            start = time.process_time()
            play()
            if number:  # the first round only warms up
                best[name] = min(best[name], time.process_time() - start)
    speed = {name: count / seconds for name, seconds in best.items()}
    return {"tokens": count, "rollouts": len(told), **speed, "ratio": speed["sampler"] / speed["generate"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--mode", choices=["lockstep", "free"], default="lockstep")
    told = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(told.rounds, told.tasks, told.siblings, told.mode)
    if told.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['sampler']:,.0f} tokens per CPU second by the sampler, {found['generate']:,.0f} by generate: "
            f"{found['ratio']:.2f} times as many (at least {TARGET} wanted), {found['rollouts']:.0f} rollouts"
        )
    return 0 if found["ratio"] >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
