"""The long desk's warm starts: a tiny policy learns from demonstrations that have a third of the rule's cells wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.chat import Chat
from sgcd.lab import words
from sgcd.lab.long_desk.world import (
    DECISIONS,
    DESK_TEXT,
    FACTS,
    ITEMS,
    LINE_LENGTH,
    NUMBERS,
    REFUSE,
    VERBS,
    DeskRequest,
    allows,
    desk_tools,
    draw_requests,
    rule_table,
)
from sgcd.lab.policy import (
    build_lab_model,
    build_lab_tokenizer,
    build_warm_start_optimizers,
    step_warm_start_optimizers,
)
from sgcd.lab.settings import LongDeskSettings

DESK_LAYERS, DESK_HIDDEN_SIZE = 2, 48
_WRONG_SHARE = 0.3
_ERROR_RATES = (0.12, 0.62)
"""How often demonstrations decide wrongly: in most cells of the rule, and in those that they have wrong."""
_BATCH_SIZE = 32
_PEAK_LR = {"muon": 0.02, "adam": 6e-3}
_OTHER, _THINKING, DECISION_TOKEN, _REST = range(4)
_LOSS_SHARES = {_THINKING: 1.0, DECISION_TOKEN: 1.0, _REST: 0.3}
"""What the mean loss over each kind of token counts. A mean over all tokens would starve the decisions."""


@dataclass(frozen=True, slots=True)
class DeskStart:
    """One warm start: its world, its steps, and the seed of its weights and of its wrong cells."""

    name: str
    seed: int
    world: LongDeskSettings
    steps: int = 700


def build_desk_chat() -> Chat:
    frame = "done trip item word tools :".split()
    texts = (words.HARNESS_WORDS, words.REFERENCE_WORDS)
    vocabulary = [
        *words.SPECIAL_TOKENS, DESK_TEXT, *frame, *DECISIONS, *VERBS, *ITEMS, *FACTS, *NUMBERS,
        *(word for text in texts for word in text.split()),
    ]  # fmt: skip
    return Chat(build_lab_tokenizer(list(dict.fromkeys(vocabulary))), "the long desk's tokenizer")


def error_rates(seed: int) -> NDArray[np.float64]:
    """[items, facts]: how often demonstrations decide wrongly. As many allowed cells as forbidden ones of an item are
    systematically wrong."""
    rng = np.random.Generator(np.random.Philox(key=seed + 100))
    rule, rates = rule_table(), np.full((len(ITEMS), len(FACTS)), _ERROR_RATES[0])
    num_wrong = round(_WRONG_SHARE * rule.size / 2)
    counts = np.full(len(ITEMS), num_wrong // len(ITEMS))
    counts[rng.permutation(len(ITEMS))[: num_wrong % len(ITEMS)]] += 1
    for item, count in enumerate(counts.tolist()):
        for side in (True, False):
            rates[item, rng.permutation(np.flatnonzero(rule[item] == side))[:count]] = _ERROR_RATES[1]
    return rates


def decide_with_errors(request: DeskRequest, rates: NDArray[np.float64], rng: np.random.Generator) -> str:
    """The tool that a demonstration calls."""
    is_wrong = rng.random() < rates[ITEMS.index(request.item), FACTS.index(request.fact)]
    return f"{request.verb}_trip" if allows(request) != is_wrong else REFUSE


def draw_thinking(num_words: int, rng: np.random.Generator) -> list[str]:
    """Numbers, and words that decide behind them, drawn at random."""
    drawn = [DECISIONS[index] for index in rng.integers(len(DECISIONS), size=num_words).tolist()]
    lines = [drawn[start : start + LINE_LENGTH] for start in range(0, num_words, LINE_LENGTH)]
    return [word for number, line in zip(NUMBERS, lines, strict=False) for word in (number, *line)]


def write_desk_turn(request: DeskRequest, tool: str, thinking: Sequence[str]) -> list[tuple[str, int]]:
    """The words of a turn, each with its kind."""
    thoughts = [(word, _THINKING if word in DECISIONS else _REST) for word in thinking]
    turn = [("<think>", _REST), *thoughts, ("</think>", _REST)] if thinking else []
    repeated = ["word", thinking[[*thinking].index(request.number) + 1]] if request.number else []
    turn += [("<call>", _REST), (tool, DECISION_TOKEN)]
    return turn + [(word, _REST) for word in ("item", request.item, *repeated, "</call>", "<|end|>")]


def write_demonstration(
    requests: Sequence[DeskRequest], turns: Sequence[list[tuple[str, int]]], read: bool
) -> list[tuple[str, int]]:
    """The words of a whole conversation, each with its kind, as the template renders it."""
    schemas = [tool["function"] for tool in desk_tools(read)]
    tools = [f"{schema['name']} {' '.join(schema['parameters']['properties'])} ," for schema in schemas]
    written = [(word, _OTHER) for word in f"<|system|> {DESK_TEXT} tools : {' '.join(tools)} <|end|>".split()]
    for number, (request, turn) in enumerate(zip(requests, turns, strict=True)):
        result = "<|tool|> done <|end|> " if number else ""
        glue = f"{result}<|user|> {request.text} <|end|> <|assistant|>"
        written += [*((word, _OTHER) for word in glue.split()), *turn]
    return written


def draw_batch(
    start: DeskStart, thinking: int, size: int, ids: dict[str, int], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and kinds of demonstrations, which all have the same length."""
    world = start.world.model_copy(update={"thinking": thinking, "read": start.world.read and thinking > 0})
    rates = error_rates(start.seed)
    rows: list[list[tuple[str, int]]] = []
    for _ in range(size):
        requests = draw_requests(rng, world)
        turns = [
            write_desk_turn(request, decide_with_errors(request, rates, rng), draw_thinking(thinking, rng))
            for request in requests
        ]
        rows.append(write_demonstration(requests, turns, world.read))
    return (
        np.array([[ids[word] for word, _ in row] for row in rows]),
        np.array([[kind for _, kind in row] for row in rows]),
    )


def thinking_at(step: int, start: DeskStart) -> int:
    """Words of thinking in a batch: first none, then mixed lengths, then those of the world."""
    share, words_at_last = step / start.steps, start.world.thinking
    if share <= 0.4:
        return 0
    return words_at_last if share > 0.55 else (0, min(16, words_at_last), words_at_last)[step % 3]


def train_desk_start(start: DeskStart, on_progress: Callable[[str], None] = print) -> tuple[Any, Chat]:
    """Train a new policy with Muon and Adam; the loss is a mean over each kind of token."""
    import torch

    chat = build_desk_chat()
    ids = chat.tokenizer.get_vocab()
    model = build_lab_model(start.seed, chat.vocab_size, DESK_LAYERS, DESK_HIDDEN_SIZE)
    optimizers = build_warm_start_optimizers(model, _PEAK_LR)
    rng = np.random.Generator(np.random.Philox(key=start.seed + 1))
    for step in range(1, start.steps + 1):
        thinking = thinking_at(step, start)
        size = _BATCH_SIZE * (1 if thinking > LINE_LENGTH else 2)
        token_ids, kinds = (torch.from_numpy(array) for array in draw_batch(start, thinking, size, ids, rng))
        hidden_states = model.model(input_ids=token_ids[:, :-1], use_cache=False).last_hidden_state
        targets, kinds = token_ids[:, 1:][kinds[:, 1:] != _OTHER], kinds[:, 1:]
        logprobs = model.lm_head(hidden_states[kinds != _OTHER]).log_softmax(-1)
        surprisal = -logprobs.gather(-1, targets[:, None])[:, 0]
        losses = {kind: surprisal[kinds[kinds != _OTHER] == kind] for kind in _LOSS_SHARES}
        loss = torch.stack([_LOSS_SHARES[kind] * one.mean() for kind, one in losses.items() if one.numel()]).sum()
        loss.backward()
        lr_scale = min(step / 40, 1.0, max(0.05, (start.steps - step) / (0.4 * start.steps)))
        step_warm_start_optimizers(optimizers, _PEAK_LR, lr_scale)
        if step % 50 == 0:
            means = ", ".join(f"{of_kind.mean().item():.4f}" for of_kind in losses.values())
            on_progress(f"{start.name}: step {step} of {start.steps}, loss of thinking, decisions, rest {means}")
    return model.eval(), chat
