"""B1 to B4, B7: the head's statistics against the product alone, the naive way, in memory, and in exactness."""

from functools import partial
from typing import Any

import torch

from sgcd.bench.arms import Inputs, divergences, in_full, inputs, naive, product, two_contexts
from sgcd.bench.figures import figure, least, most
from sgcd.bench.memory import SIZE, WIDTH
from sgcd.bench.timing import fastest, fresh, on_device
from sgcd.learn.rows import ROOM
from sgcd.learn.stats import stats_at, topk_stats

SMALL = 3 * 2**24
"""The budget at which memory is compared: some 40 rows of a float32 product."""
FLOAT32, BFLOAT16 = "CPU, float32", "CPU, bfloat16"
CUDA = "CUDA, bfloat16"
ABSENT = "CUDA is not there: its rows were not measured."
GB = 1e9


def speed(rounds: int, tokens: int) -> dict[str, Any]:
    """B1 and B2, from the same rounds."""
    took = {
        FLOAT32: cpu(torch.float32, rounds, tokens),
        BFLOAT16: cpu(torch.bfloat16, rounds, tokens),
        CUDA: cuda(rounds),
    }

    def over(where: str, above: str, below: str) -> float | None:
        told = took[where]
        return told[above] / told[below] if told else None

    for told in took.values():
        if told:  # the training pass reads the student anyway: what is added is to ask it at the teacher's ids
            told["single pass"] = told["ours"] + max(0.0, told["student at ids"] - told["student"])
    note = f"{tokens} tokens on the CPU." + ("" if took[CUDA] else " " + ABSENT)
    floor = {FLOAT32: 1.08, BFLOAT16: 1.25, CUDA: 1.35}
    against = {FLOAT32: (1.0, 1.8), BFLOAT16: (1.7, 3.0), CUDA: (5, 10)}
    b1 = [most(where, over(where, "ours", "product"), target) for where, target in floor.items()]
    b2 = [
        least(f"{where}, {arm}", over(where, "naive", arm), target)
        for where, targets in against.items()
        for arm, target in zip(("two contexts", "single pass"), targets, strict=True)
    ]
    return {
        "B1": figure("topk_stats over the product with the head alone", b1, note),
        "B2": figure("the naive way over ours", b2, note),
    }


def arms_of(given: Inputs, rows: int) -> dict[str, Any]:
    ids = topk_stats(given.teacher, given.head, given.observed, 20).ids
    student = given.student, given.head, given.observed
    return {
        "product": lambda: product(given, ROOM),
        "ours": lambda: topk_stats(given.teacher, given.head, given.observed, 20),
        "naive": lambda: naive(given, rows),
        "two contexts": lambda: two_contexts(given, ROOM),
        "student": lambda: stats_at(*student, []),
        "student at ids": lambda: stats_at(*student, [ids]),
    }


def cpu(dtype: torch.dtype, rounds: int, tokens: int) -> dict[str, float]:
    return fastest(arms_of(inputs(tokens, WIDTH, SIZE, dtype), tokens), rounds)


def cuda(rounds: int) -> dict[str, float]:
    """At the size of a 4B model, the naive way in chunks of 1024 rows."""
    if not torch.cuda.is_available():
        return {}
    return on_device(arms_of(inputs(8192, 2560, SIZE, torch.bfloat16, "cuda"), 1024), rounds)


def memory() -> dict[str, Any]:
    """B3, each arm in a fresh process."""
    ours, shorter = (fresh("rows", "ours", tokens, SMALL) for tokens in (1024, 512))
    whole, backbone = fresh("rollout", "scored", SMALL), fresh("rollout", "backbone", SMALL)
    cases = [
        least("naive over ours, 1024 tokens, float32", fresh("rows", "naive", 1024, SMALL) / ours, 50),
        most("1024 tokens over 512", ours / shorter, 1.0),
        most("8k-token rollout, both contexts, head of a 4B model, GB beyond the backbone", (whole - backbone) / GB, 1),
    ]
    note = f"scoring.bytes is {SMALL:,} here. {slower()}" + ("" if torch.cuda.is_available() else " " + ABSENT)
    return {"B3": figure("peak of memory", cases, note)}


def slower() -> str:
    """What the small budget costs in time."""
    found: list[str] = []
    for name in ("float32", "bfloat16"):
        given = inputs(256, WIDTH, SIZE, getattr(torch, name))
        took = fastest(
            {"small": partial(two_contexts, given, SMALL), "usual": partial(two_contexts, given, ROOM)}, 2, 1
        )
        found.append(f"{took['small'] / took['usual']:.2f} in {name}")
    return f"Over the time that two contexts take with {ROOM:,}: {', '.join(found)}."


def errors() -> dict[str, Any]:
    """B4: the divergence against float64, from the same weights and hidden states."""
    half, single = (inputs(128, WIDTH, 65_536, dtype) for dtype in (torch.bfloat16, torch.float32))
    truth, ids = in_full(half, torch.float64)
    ours, found = divergences(half)
    rough, rounded = in_full(half, torch.bfloat16)
    error = float((ours.double() - truth).abs().max())
    exact, exact_ids = in_full(single, torch.float64)
    mine, mine_ids = divergences(single)
    cases = [
        least(
            "error of bfloat16 logits over ours, weights in bfloat16", float((rough - truth).abs().max()) / error, 50
        ),
        least("rows with the same K ids, weights in bfloat16", float((found == ids).all(-1).float().mean()), 0.99),
        most("error in float32", float((mine.double() - exact).abs().max()), 1e-5),
        least("rows with the same K ids, float32", float((mine_ids == exact_ids).all(-1).float().mean()), 0.99),
    ]
    same = float((rounded == ids).all(-1).float().mean())
    return {
        "B4": figure("errors of the divergence", cases, f"With bfloat16 logits {same:.2f} of rows have the same ids.")
    }


def sharing() -> dict[str, Any]:
    """B7, of which nothing is there yet."""
    cases = [least("Qwen3", None, 0.95), least("Qwen3.5", None, 0.90)]
    note = "Not built: scoring and training read the prompt of every rollout by itself."
    return {"B7": figure("ideal ratio of tokens over the measured ratio, prefixes shared", cases, note)}
