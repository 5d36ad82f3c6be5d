"""Trains the warm starts: supervised, on noisy demonstrations of train tasks, some with a reference in the prompt."""

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
from sgcd.contrast.insert import encode_reference, insert_reference, write_leaky_text, write_neutral_text
from sgcd.contrast.trace import swap_outcomes
from sgcd.contrast.writers import WriterFailed
from sgcd.contrast.writers.built_in import compose_reference
from sgcd.errors import RecipeError
from sgcd.lab import policy as lab_policy
from sgcd.lab import warm_start_checks as gate
from sgcd.lab import words
from sgcd.lab.demonstrate import (
    CAREFUL,
    NOISY,
    Demonstration,
    ErrorRates,
    Script,
    encode_demonstration,
    play_script,
    sft_loss_weights,
    trace_demonstrations,
)
from sgcd.lab.long_desk.starts import DESK_STARTS, build_desk_start
from sgcd.lab.settings import LabSettings
from sgcd.lab.tasks import generate_tasks
from sgcd.learn.policy.load import Policy, save_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings
from sgcd.records import Task, TokenIds
from sgcd.storage.atomic import SCHEMA


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Data of one warm start: shares of the examples by kind of reference; the other examples have none."""

    name: str
    world: LabSettings
    steps: int
    leaky_share: float = 0.0
    own_share: float = 0.28
    swapped_share: float = 0.1
    """Success and failure exchanged in the reference, and the failed play that it describes."""
    shuffled_share: float = 0.1
    neutral_share: float = 0.04
    """A text of the same length that says nothing."""
    failures_share: float = 0.4
    """Share of the own and swapped references that name failures as well."""
    longer_share: float = 0.1
    """Share of examples with two requests instead of one."""
    valued_share: float = 0.5
    """Share of examples whose request names a day, a cabin or, half as often, a number. Copying is learnt last."""
    early_valued_share: float = 0.5
    """The same share in the first half of the steps."""
    seed: int = 0


_OWN_TEXTS_ALONE: dict[str, Any] = {
    "own_share": 0.36,
    "swapped_share": 0.0,
    "shuffled_share": 0.14,
    "neutral_share": 0.0,
    "failures_share": 0.0,
}
"""Shares of the starts that never saw a swapped or a neutral text."""
WARM_STARTS = {
    start.name: start
    for start in (
        WarmStart("plain", LabSettings(name="lab"), steps=2000),
        WarmStart("chatty", LabSettings(name="lab", chatty="own"), steps=2000, early_valued_share=0.85),
        WarmStart("chatty-shared", LabSettings(name="lab", chatty="shared"), steps=1600, **_OWN_TEXTS_ALONE),
        WarmStart(
            "plain-leaky",
            LabSettings(name="lab"),
            steps=2000,
            leaky_share=0.05,
            early_valued_share=0.85,
            **_OWN_TEXTS_ALONE,
        ),
    )
}
_BATCH_SIZE = 32
_PEAK_LR = {"muon": 0.02, "adam": 3e-3}


@dataclass(frozen=True, slots=True)
class SftExample:
    """Token ids and a loss weight per token; zero on all but policy tokens."""

    ids: TokenIds
    weights: Sequence[float]


def generate_examples(start: WarmStart, chat: Chat) -> Iterator[SftExample]:
    """An endless, seeded stream of demonstrations of train tasks."""
    rng = np.random.Generator(np.random.Philox(key=start.seed + 1))
    pools: dict[int | str, Sequence[Task]] = {horizon: generate_tasks("train", horizon) for horizon in (1, 2)}
    valued = [task for task in pools[1] if task.category == "action" and task.row["requests"][0]["value"]]
    pools["valued"] = valued + [task for task in valued if task.row["requests"][0]["intent"] != "bags"]
    thoughts = words.thought_pools(start.world.chatty, start.world.thinking)
    last_text = ""
    with asyncio.Runner() as runner:

        def play(task: Task, error_rates: ErrorRates, immediate_answer: str = "") -> Demonstration:
            return runner.run(play_script(task, Script(task, error_rates, rng, thoughts), immediate_answer))

        for number in count():
            value_share = start.early_valued_share if number < start.steps * _BATCH_SIZE / 2 else start.valued_share
            horizon_drawn = 2 if rng.random() < start.longer_share else 1
            task = _pick(rng, pools["valued" if rng.random() < value_share else horizon_drawn])
            draw = rng.random()
            if draw < start.leaky_share:
                answer = play(task, CAREFUL).texts[-1]
                answers_at_once = rng.random() < 0.75 and len(task.row["requests"]) == 1
                yield _build_example(
                    play(task, CAREFUL, answer if answers_at_once else ""),
                    chat,
                    write_leaky_text(answer.rpartition(" </think> ")[2]),
                )
                continue
            draw -= start.leaky_share
            if draw < start.own_share + start.swapped_share:
                siblings = [play(task, NOISY) for _ in range(8)]
                swapped = draw >= start.own_share
                names_failures = start.failures_share > 0 and rng.random() < start.failures_share
                text = contrast_demonstrations(siblings, swapped=swapped, names_failures=names_failures)
                last_text = text or last_text
                failed = [sibling for sibling in siblings if not sibling.verdict.success]
                followed = failed[0] if swapped and text else play(task, CAREFUL if text else NOISY)
                yield _build_example(followed, chat, text)
                continue
            draw -= start.own_share + start.swapped_share
            text = last_text if draw < start.shuffled_share + start.neutral_share else ""
            if draw >= start.shuffled_share:
                text = write_neutral_text(text)
            yield _build_example(play(task, NOISY), chat, text)


def contrast_demonstrations(
    demonstrations: Sequence[Demonstration], *, swapped: bool = False, names_failures: bool = False
) -> str:
    """The built-in writer's reference for these siblings; empty if they are not mixed, or nothing parts them."""
    if len({demonstration.verdict.success for demonstration in demonstrations}) < 2:
        return ""
    traces = trace_demonstrations(demonstrations)
    try:
        return compose_reference(swap_outcomes(traces) if swapped else traces, names_failures=names_failures)
    except WriterFailed:
        return ""


def _pick(rng: np.random.Generator, tasks: Sequence[Task]) -> Task:
    return tasks[int(rng.integers(len(tasks)))]


def _build_example(demonstration: Demonstration, chat: Chat, text: str) -> SftExample:
    rollout = encode_demonstration(demonstration, chat)
    prompt = (
        insert_reference(rollout.prompt, rollout.reference_position, encode_reference(chat, text))
        if text
        else rollout.prompt
    )
    return SftExample(
        np.concatenate([prompt, rollout.response]), [0.0] * len(prompt) + list(sft_loss_weights(rollout, chat))
    )


def train_warm_start(
    start: WarmStart, steps: int | None = None, on_progress: Callable[[str], None] = print
) -> tuple[Any, Chat]:
    """Train a new policy: Muon for matrices, Adam for the rest, similar lengths per batch, learning rate falls to 0."""
    import torch

    chat = lab_policy.build_lab_chat()
    model = lab_policy.build_lab_model(start.seed, chat.vocab_size)
    steps = steps or start.steps
    optimizers = lab_policy.build_warm_start_optimizers(model, _PEAK_LR)
    stream = _bucket_batches(generate_examples(start, chat))
    for step in range(steps):
        lr_scale = min((step + 1) / 50, 1.0, (steps - step) / (0.4 * steps))
        ids, weights = _pad(next(stream), chat.pad_id)
        has_loss = weights[:, 1:] > 0
        with torch.autocast("cpu", torch.bfloat16):
            hidden_states = model.model(input_ids=ids).last_hidden_state[:, :-1].float()
        logprobs = model.lm_head(hidden_states[has_loss]).log_softmax(-1)
        target_logprobs = logprobs.gather(1, ids[:, 1:][has_loss][:, None])[:, 0]
        loss = -(target_logprobs * weights[:, 1:][has_loss]).sum() / weights[:, 1:].sum()
        loss.backward()
        lab_policy.step_warm_start_optimizers(optimizers, _PEAK_LR, lr_scale)
        if (step + 1) % 50 == 0:
            on_progress(f"{start.name}: step {step + 1} of {steps}, loss {loss.item():.3f}")
    return model.eval(), chat


def _bucket_batches(stream: Iterator[SftExample]) -> Iterator[list[SftExample]]:
    """Batches of similar length: sixteen batches are sorted together and yielded in a fixed scattered order."""
    while True:
        pool = sorted((next(stream) for _ in range(16 * _BATCH_SIZE)), key=lambda example: len(example.ids))
        for index in range(16):
            offset = index * 7 % 16 * _BATCH_SIZE
            yield pool[offset : offset + _BATCH_SIZE]


def _pad(batch: list[SftExample], pad: int) -> tuple[Any, Any]:
    import torch

    width = -(-max(len(example.ids) for example in batch) // 16) * 16  # Few shapes: each one costs time and memory.
    ids = torch.full((len(batch), width), pad, dtype=torch.long)
    weights = torch.zeros((len(batch), width))
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.from_numpy(example.ids.astype(np.int64))
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    return ids, weights


def build_warm_starts(
    names: Sequence[str], out: Path | None, on_progress: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train, measure and save the named warm starts, or all of them. Returns each one's measurements."""
    known = {**WARM_STARTS, **DESK_STARTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(f"lab warm-start: there is no {unknown[0]!r}; expected one of {', '.join(known)}")
    gates: dict[str, Any] = {}
    for name in names or known:
        folder = (out or lab_policy.STARTS_DIR) / name
        if name in DESK_STARTS:
            gates[name] = build_desk_start(DESK_STARTS[name], folder, on_progress)
        else:
            gates[name] = _build_warm_start(WARM_STARTS[name], folder, on_progress)
        (folder / "gate.json").write_text(json.dumps({"schema": SCHEMA, **gates[name]}, indent=1) + "\n")
        on_progress(f"{name}: {'passes' if gates[name]['passes'] else 'DOES NOT PASS'} the gate; saved in {folder}")
    return gates


def _build_warm_start(start: WarmStart, folder: Path, on_progress: Callable[[str], None]) -> dict[str, Any]:
    import torch

    model, chat = train_warm_start(start, on_progress=on_progress)
    facts = {"start": start.name, "steps": start.steps, "seed": start.seed, "torch threads": torch.get_num_threads()}
    save_policy(Policy(model, chat), folder, facts)
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(model, chat, SamplerSettings(slots=200), executor)
        return asyncio.run(gate.measure_warm_start(model, chat, sampler, world=start.world))
