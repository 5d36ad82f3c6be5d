"""The long desk's warm starts: a tiny policy learns from demonstrations that have a third of the rule's cells wrong."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.chat import Chat
from sgcd.errors import PolicyError
from sgcd.lab.long_desk.demonstrate import (
    DECISION_TOKEN,
    OTHER_TOKEN,
    REST_TOKEN,
    THINKING_TOKEN,
    DemonstrationStream,
    build_desk_chat,
    error_rates,
)
from sgcd.lab.long_desk.measure import DeskSizes, measure_long_desk
from sgcd.lab.long_desk.world import DECISIONS, LINE_LENGTH
from sgcd.lab.policy import build_lab_model, build_warm_start_optimizers, step_warm_start_optimizers
from sgcd.lab.settings import LongDeskSettings
from sgcd.learn.policy.load import Policy, load_policy, save_policy
from sgcd.learn.sampling.sampler import TorchSampler
from sgcd.learn.settings import SamplerSettings

DESK_LAYERS, DESK_HIDDEN_SIZE = 2, 48
_BATCH_SIZE = 32
_PEAK_LR = {"muon": 0.02, "adam": 6e-3}
_FALLING_STEPS = 240
"""The last steps, over which the learning rate falls."""
_LOSS_SHARES = {THINKING_TOKEN: 3.0, DECISION_TOKEN: 1.0, REST_TOKEN: 3.0}
"""How much the mean loss of each kind of token counts. A mean over all tokens would starve the decisions; with less on
the others a turn in twenty has a word out of place."""


@dataclass(frozen=True, slots=True)
class DeskStart:
    """One warm start: its world, its steps, and the seed of its weights and of its wrong cells."""

    name: str
    seed: int
    world: LongDeskSettings
    silent_steps: int = 240
    """Steps on demonstrations without thinking, from which the rule is learned; some seeds need more of them."""
    mixed_steps: int = 90
    """Then those on thinking of several lengths."""
    whole_steps: int = 270
    """And those on the world's thinking."""

    @property
    def steps(self) -> int:
        return self.silent_steps + self.mixed_steps + self.whole_steps


_WORLD = LongDeskSettings(name="long_desk")
_SHORT_WORLD = _WORLD.model_copy(update={"thinking": 16})
DESK_STARTS = {
    start.name: start
    for start in (
        DeskStart("long-desk-1", 2, _WORLD),
        DeskStart("long-desk-2", 3, _WORLD, silent_steps=800),
        DeskStart("long-desk-3", 5, _WORLD, silent_steps=800),
        DeskStart("long-desk-short", 2, _SHORT_WORLD, silent_steps=600),
        DeskStart("long-desk-short-2", 3, _SHORT_WORLD, silent_steps=800),
        DeskStart("long-desk-short-3", 5, _SHORT_WORLD, silent_steps=800),
        DeskStart("long-desk-read", 4, _WORLD.model_copy(update={"read": True})),
    )
}
"""Three starts that differ in weights and in wrong cells, three that think sixteen words a turn, and one for the world
in which thinking has to be read. All but the last are shipped."""


def draw_batch(
    stream: DemonstrationStream, thinking: int, size: int, ids: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and kinds of demonstrations with so many words of thinking, padded on the right."""
    world = stream.world.model_copy(update={"thinking": thinking, "read": stream.world.read and thinking > 0})
    shorter = replace(stream, world=world)
    rows = [shorter.draw() for _ in range(size)]
    stream.last_reference = shorter.last_reference
    width = -(-max(map(len, rows)) // 16) * 16  # few shapes: each one costs time and memory
    token_ids = np.full((size, width), ids["<pad>"])
    kinds = np.full((size, width), OTHER_TOKEN)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = [ids[word] for word, _ in row]
        kinds[index, : len(row)] = [kind for _, kind in row]
    return token_ids, kinds


def thinking_at(step: int, start: DeskStart) -> int:
    """Words of thinking in a batch: first none, then mixed lengths, then those of the world."""
    words_at_last = start.world.thinking
    if step <= start.silent_steps:
        return 0
    is_mixed = step <= start.silent_steps + start.mixed_steps
    return (0, min(LINE_LENGTH, words_at_last), words_at_last)[step % 3] if is_mixed else words_at_last


def train_desk_start(start: DeskStart, on_progress: Callable[[str], None] = print) -> tuple[Any, Chat]:
    """Train a new policy with Muon and Adam; the loss is a mean over each kind of token."""
    import torch

    chat = build_desk_chat()
    ids = chat.tokenizer.get_vocab()
    decision_ids = [ids[word] for word in DECISIONS]
    model = build_lab_model(start.seed, chat.vocab_size, DESK_LAYERS, DESK_HIDDEN_SIZE)
    optimizers = build_warm_start_optimizers(model, _PEAK_LR)
    rng = np.random.Generator(np.random.Philox(key=start.seed + 1))
    stream = DemonstrationStream(start.world, error_rates(start.seed), chat, rng)
    for step in range(1, start.steps + 1):
        thinking = thinking_at(step, start)
        size = _BATCH_SIZE * (1 if thinking > LINE_LENGTH else 2)
        token_ids, kinds = (torch.from_numpy(array) for array in draw_batch(stream, thinking, size, ids))
        hidden_states = model.model(input_ids=token_ids[:, :-1], use_cache=False).last_hidden_state
        targets, kinds = token_ids[:, 1:][kinds[:, 1:] != OTHER_TOKEN], kinds[:, 1:]
        logprobs = model.lm_head(hidden_states[kinds != OTHER_TOKEN]).log_softmax(-1)
        surprisal = -logprobs.gather(-1, targets[:, None])[:, 0]
        kinds = kinds[kinds != OTHER_TOKEN]
        losses = {kind: surprisal[kinds == kind] for kind in _LOSS_SHARES}
        # Of all words alike and not of the drawn one, which has the same mean and much less noise.
        losses[THINKING_TOKEN] = -logprobs[kinds == THINKING_TOKEN][:, decision_ids].mean(dim=1)
        loss = torch.stack([_LOSS_SHARES[kind] * one.mean() for kind, one in losses.items() if one.numel()]).sum()
        loss.backward()
        lr_scale = min(step / 40, 1.0, max(0.05, (start.steps - step) / _FALLING_STEPS))
        step_warm_start_optimizers(optimizers, _PEAK_LR, lr_scale)
        if step % 50 == 0:
            means = ", ".join(f"{of_kind.mean().item():.4f}" for of_kind in losses.values())
            on_progress(f"{start.name}: step {step} of {start.steps}, loss of thinking, decisions, rest {means}")
    return model.eval(), chat


def build_desk_start(start: DeskStart, folder: Path, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Train, save and measure a start; its folder has the measurements."""
    import torch

    model, chat = train_desk_start(start, on_progress)
    facts = {"start": start.name, "steps": start.steps, "seed": start.seed, "torch threads": torch.get_num_threads()}
    save_policy(Policy(model, chat), folder, facts)
    return _measure(Policy(model, chat), start.world, DeskSizes(), on_progress)


def measure_desk_policy(
    start: str, world: LongDeskSettings, sizes: DeskSizes, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """Measure a start by its name, or the policy of a folder."""
    policy = load_policy(f"lab:{start}" if start in DESK_STARTS else start, "float32")
    if missing := {*DECISIONS} - {*policy.chat.tokenizer.get_vocab()}:
        raise PolicyError(
            f"lab measure: {start} does not know {sorted(missing)[0]!r}; expected a policy of the long desk, such as "
            f"{', '.join(DESK_STARTS)}, or a folder that was trained from one"
        )
    return _measure(policy, world, sizes, on_progress)


def _measure(
    policy: Policy, world: LongDeskSettings, sizes: DeskSizes, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as executor:
        sampler = TorchSampler(policy.model, policy.chat, SamplerSettings(lookahead=16), executor)
        return measure_long_desk(policy.model, policy.chat, sampler, world=world, sizes=sizes, on_progress=on_progress)
