"""B7: what siblings cost whose prompt is computed once, against the share of tokens that is left."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from sgcd.bench.step import build_random_rollout, build_small_qwen
from sgcd.bench.timing import (
    BenchCase,
    at_least,
    at_most,
    measure_peak_memory,
    min_cpu_seconds,
    run_in_new_process,
    summarize_cases,
)
from sgcd.learn.scoring.forward import ForwardConfig, build_batch, forward_hidden_states, total_length
from sgcd.records import Rollout, Turn

NUM_SIBLINGS, LENGTH = 8, 512
SHARES = (0.5, 0.8, 0.9)
_ALONE, _SHARED = ForwardConfig(), ForwardConfig(share=True)
TITLE = "time or memory without sharing over that with it, over the ratio of tokens"
NOTE = (
    f"{NUM_SIBLINGS} siblings of {LENGTH} tokens, random Qwen3, 4 layers, hidden 512, float32, without the head. "
    "A token of a response sees as many tokens as before, so attention may fall by less than tokens do."
)


def build_siblings(prompt_share: float, length: int = LENGTH) -> list[Rollout]:
    """Siblings of one length whose prompt is this share of it; all of a response is written."""
    num_prompt = max(1, round(prompt_share * length))
    return build_group_of(NUM_SIBLINGS, num_prompt, length - num_prompt, is_shared=prompt_share > 0)


def build_group_of(num_siblings: int, num_prompt: int, num_written: int, *, is_shared: bool = True) -> list[Rollout]:
    """Siblings with prompts and responses of these lengths, every other one with success."""
    ids = np.random.default_rng(5).integers(0, 400, (num_siblings, num_prompt + num_written)).astype(np.int32)
    if is_shared:
        ids[:, :num_prompt] = ids[0, :num_prompt]
    return [
        replace(
            build_random_rollout("t", sibling, 1),
            prompt=row[:num_prompt],
            reference_position=0,
            response=row[num_prompt:],
            response_mask=np.ones(num_written, np.bool_),
            token_kinds=np.full(num_written, 2, np.uint8),
            sampling_logprobs=np.zeros(num_written, np.float32),
            turns=(Turn(0, num_written),),
        )
        for sibling, row in enumerate(ids)
    ]


def token_ratio(model: Any, siblings: list[Rollout]) -> float:
    """Tokens of the rows over those of the tree."""
    return sum(map(total_length, siblings)) / build_batch(model, siblings, _SHARED).num_tokens


def run_backbone(model: Any, siblings: list[Rollout], config: ForwardConfig, *, with_gradient: bool) -> None:
    """The passes that sharing shortens; the head reads written tokens alone and is the same in both ways."""
    with torch.set_grad_enabled(with_gradient):
        hidden, _ = forward_hidden_states(model, build_batch(model, siblings, config))
        if with_gradient:
            hidden.sum().backward()


def build_sharing_arms(model: Any, siblings: list[Rollout]) -> dict[str, Callable[[], None]]:
    return {
        f"{name}, {passes}": partial(run_backbone, model, siblings, config, with_gradient=passes == "both")
        for name, config in (("alone", _ALONE), ("shared", _SHARED))
        for passes in ("forward", "both")
    }


def measure_sharing_memory(arm: str, prompt_share: float) -> int:
    """Peak bytes of a forward and a backward pass beyond weights and gradients."""
    model, siblings = build_small_qwen(), build_siblings(prompt_share)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    config = _SHARED if arm == "shared" else _ALONE
    return measure_peak_memory(partial(run_backbone, model, siblings, config, with_gradient=True))


def measure_share(model: Any, share: float, rounds: int) -> list[BenchCase]:
    """Time and memory of siblings whose prompt is this share of their tokens."""
    siblings = build_siblings(share)
    tokens = token_ratio(model, siblings)
    seconds = min_cpu_seconds(build_sharing_arms(model, siblings), rounds, 1)
    ratios = {passes: seconds[f"alone, {passes}"] / seconds[f"shared, {passes}"] for passes in ("forward", "both")}
    alone, shared = (run_in_new_process("sharing", arm, share) for arm in ("alone", "shared"))
    return [
        at_least(f"prompt share {share}, forward", ratios["forward"] / tokens, 0.95),
        at_least(f"prompt share {share}, forward and backward", ratios["both"] / tokens, 0.95),
        at_least(f"prompt share {share}, peak memory", alone / shared / tokens, 0.9),
    ]


def measure_unshared(model: Any, rounds: int) -> BenchCase:
    """Rollouts that have nothing in common: what it costs to look."""
    arms = build_sharing_arms(model, build_siblings(0))
    seconds = min_cpu_seconds({name: arms[name] for name in ("alone, both", "shared, both")}, rounds, 1)
    return at_most("nothing shared, time", seconds["shared, both"] / seconds["alone, both"], 1.02)


def measure_sharing(rounds: int) -> dict[str, Any]:
    model = build_small_qwen()
    cases = [case for share in SHARES for case in measure_share(model, share, rounds)]
    return {"B7": summarize_cases(TITLE, [*cases, measure_unshared(model, rounds)], NOTE)}
