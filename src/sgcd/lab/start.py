"""The warm starts: supervised on noisy demonstrations of train tasks, some with a reference in their context."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.chat import Chat
from sgcd.contrast.insert import block, insert
from sgcd.contrast.write import write
from sgcd.errors import RecipeError
from sgcd.lab import gate, words
from sgcd.lab import policy as lab_policy
from sgcd.lab.demonstrate import CAREFUL, NOISY, Care, Played, Script, enact, leak, loss_weights, tokens
from sgcd.lab.settings import LabEnvironment
from sgcd.lab.tasks import tasks_of
from sgcd.learn.policy import Policy, save
from sgcd.learn.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Ids, Task


@dataclass(frozen=True, slots=True)
class Start:
    """What one warm start has seen. The shares of examples that carry a reference, by kind; the rest carries none."""

    name: str
    world: LabEnvironment
    steps: int
    leaky: float = 0.0
    own: float = 0.36
    shuffled: float = 0.14
    longer: float = 0.1
    """Share of examples with two requests instead of one."""
    valued: float = 0.5
    """Share of examples whose request names a day, a cabin or, half as often, a number: copying is learnt last."""
    early: float = 0.5
    """The same share in the first half of the steps."""
    seed: int = 0


STARTS = {
    start.name: start
    for start in (
        Start("plain", LabEnvironment(name="lab"), steps=2000),
        Start("chatty", LabEnvironment(name="lab", chatty="own"), steps=2000, early=0.85),
        Start("chatty-shared", LabEnvironment(name="lab", chatty="shared"), steps=1600),
        Start("plain-leaky", LabEnvironment(name="lab"), steps=2000, leaky=0.05, early=0.85),
    )
}
BATCH = 32
PEAK = {"muon": 0.02, "adam": 3e-3}


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and a loss weight for each: zero on all that the policy did not write."""

    ids: Ids
    weights: Sequence[float]


def examples(start: Start, chat: Chat) -> Iterator[Example]:
    """An endless, seeded stream of demonstrations of train tasks."""
    rng = np.random.Generator(np.random.Philox(key=start.seed + 1))
    pools: dict[int | str, Sequence[Task]] = {horizon: tasks_of("train", horizon) for horizon in (1, 2)}
    valued = [task for task in pools[1] if task.category == "action" and task.row["requests"][0]["value"]]
    pools["valued"] = valued + [task for task in valued if task.row["requests"][0]["intent"] != "bags"]
    thoughts = words.thoughts_of(start.world.chatty, start.world.thinking)
    last = ""
    with asyncio.Runner() as runner:

        def play(task: Task, care: Care, at_once: str = "") -> Played:
            return runner.run(enact(task, Script(task, care, rng, thoughts), at_once))

        for number in count():
            share = start.early if number < start.steps * BATCH / 2 else start.valued
            longer = 2 if rng.random() < start.longer else 1
            task = _pick(rng, pools["valued" if rng.random() < share else longer])
            kind = rng.random()
            if kind < start.leaky:
                told = play(task, CAREFUL).texts[-1]
                skips = rng.random() < 0.75 and len(task.row["requests"]) == 1
                yield _example(play(task, CAREFUL, told if skips else ""), chat, leak(told.rpartition(" </think> ")[2]))
            elif kind < start.leaky + start.own:
                text = contrast([play(task, NOISY) for _ in range(8)])
                last = text or last
                yield _example(play(task, CAREFUL if text else NOISY), chat, text)
            else:
                text = last if kind < start.leaky + start.own + start.shuffled else ""
                yield _example(play(task, NOISY), chat, text)


def contrast(played: Sequence[Played]) -> str:
    """What the built-in writer says of siblings; empty when they do not mix."""
    mixed = len({one.verdict.success for one in played}) == 2
    return write([one.trace for one in played]) if mixed else ""


def _pick(rng: np.random.Generator, tasks: Sequence[Task]) -> Task:
    return tasks[int(rng.integers(len(tasks)))]


def _example(played: Played, chat: Chat, text: str) -> Example:
    rollout = tokens(played, chat)
    prompt = insert(rollout.prompt, rollout.insert_at, block(chat, text)) if text else rollout.prompt
    return Example(np.concatenate([prompt, rollout.response]), [0.0] * len(prompt) + list(loss_weights(rollout, chat)))


def train(start: Start, steps: int | None = None, say: Callable[[str], None] = print) -> tuple[Any, Chat]:
    """Fit a fresh policy: Muon on matrices, Adam on the rest; batches of similar length; the rate falls to zero."""
    import torch

    chat = lab_policy.chat()
    model = lab_policy.model(start.seed, chat.size)
    steps = steps or start.steps
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(inner, lr=PEAK["muon"], weight_decay=0.0),
        torch.optim.AdamW(outer, lr=PEAK["adam"], betas=(0.9, 0.98), weight_decay=0.0),
    ]
    stream = _buckets(examples(start, chat))
    for step in range(steps):
        rate = min((step + 1) / 50, 1.0, (steps - step) / (0.4 * steps))
        for optimizer, peak in zip(optimizers, PEAK.values(), strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate
        ids, weights = _pad(next(stream), chat.pad)
        wanted = weights[:, 1:] > 0
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1].float()
        logp = model.lm_head(hidden[wanted]).log_softmax(-1)
        picked = logp.gather(1, ids[:, 1:][wanted][:, None])[:, 0]
        loss = -(picked * weights[:, 1:][wanted]).sum() / weights[:, 1:].sum()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0:
            say(f"{start.name}: step {step + 1} of {steps}, loss {loss.item():.3f}")
    return model.eval(), chat


def _buckets(stream: Iterator[Example]) -> Iterator[list[Example]]:
    """Batches of similar length, out of sixteen batches at a time, in a fixed scattered order."""
    while True:
        held = sorted((next(stream) for _ in range(16 * BATCH)), key=lambda example: len(example.ids))
        for index in range(16):
            at = index * 7 % 16 * BATCH
            yield held[at : at + BATCH]


def _pad(batch: list[Example], pad: int) -> tuple[Any, Any]:
    import torch

    width = -(-max(len(example.ids) for example in batch) // 16) * 16  # few shapes: each one costs time and memory
    ids = torch.full((len(batch), width), pad, dtype=torch.long)
    weights = torch.zeros((len(batch), width))
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.from_numpy(example.ids.astype(np.int64))
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    return ids, weights


def rebuild(names: Sequence[str], out: Path | None, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Train, measure and save the warm starts (all when none is named); returns each one's gate."""
    import torch

    unknown = [name for name in names if name not in STARTS]
    if unknown:
        raise RecipeError(f"lab warm-start: there is no {unknown[0]!r}; expected one of {', '.join(STARTS)}")
    gates: dict[str, Any] = {}
    for name in names or STARTS:
        start = STARTS[name]
        model, chat = train(start, say=say)
        folder = (out or lab_policy.STARTS) / name
        facts = {"start": name, "steps": start.steps, "seed": start.seed, "torch threads": torch.get_num_threads()}
        save(Policy(model, chat), folder, facts)
        with ThreadPoolExecutor(1) as executor:
            sampler = TorchSampler(model, chat, SamplerSettings(slots=200), executor)
            gates[name] = asyncio.run(gate.measure(model, chat, sampler, start.world))
        (folder / "gate.json").write_text(json.dumps({"schema": 1, **gates[name]}, indent=1) + "\n")
        say(f"{name}: {'passes' if gates[name]['passes'] else 'DOES NOT PASS'} the gate; saved in {folder}")
    return gates
