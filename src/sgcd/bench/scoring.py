"""Figures B1 to B4: speed, memory and error of the head's statistics, against the naive way and the product alone."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from sgcd.bench.arms import (
    HEAD_TOP_K,
    HeadInputs,
    build_head_inputs,
    run_naive,
    run_product,
    score_divergence,
    score_divergence_in_full,
    score_two_contexts,
)
from sgcd.bench.memory import HIDDEN_SIZE, VOCAB_SIZE
from sgcd.bench.timing import (
    at_least,
    at_most,
    median_cuda_seconds,
    min_cpu_seconds,
    run_in_new_process,
    summarize_cases,
)
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.scoring.logits.stats import stats_at, topk_stats

_SMALL_LOGITS_BYTES = 3 * 2**24
"""The budget at which memory is compared: about 40 tokens of a float32 product."""
_FLOAT32, _BFLOAT16 = "CPU, float32", "CPU, bfloat16"
_CUDA = "CUDA, bfloat16"
_NO_CUDA_NOTE = "CUDA is not there: its rows were not measured."
_GB = 1e9


def measure_speed(rounds: int, num_tokens: int) -> dict[str, Any]:
    """B1 and B2, from the same rounds."""
    seconds = {
        _FLOAT32: time_on_cpu(torch.float32, rounds, num_tokens),
        _BFLOAT16: time_on_cpu(torch.bfloat16, rounds, num_tokens),
        _CUDA: time_on_cuda(rounds),
    }

    ratios = {label: speed_ratios(arm_seconds) for label, arm_seconds in seconds.items()}
    note = f"{num_tokens} tokens on the CPU." + ("" if seconds[_CUDA] else " " + _NO_CUDA_NOTE)
    max_ratios = {_FLOAT32: 1.08, _BFLOAT16: 1.25, _CUDA: 1.35}
    min_speedups = {_FLOAT32: (1.0, 1.8), _BFLOAT16: (1.7, 3.0), _CUDA: (5, 10)}
    b1 = [at_most(label, ratios[label].get("over the product"), target) for label, target in max_ratios.items()]
    b2 = [
        at_least(f"{label}, {arm}", ratios[label].get(arm), target)
        for label, targets in min_speedups.items()
        for arm, target in zip(("two contexts", "single pass"), targets, strict=True)
    ]
    return {
        "B1": summarize_cases("topk_stats over the product with the head alone", b1, note),
        "B2": summarize_cases("the naive way over ours", b2, note),
    }


def speed_ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """B1's ratio and B2's two, of the seconds of all arms; empty where nothing was measured."""
    if not seconds:
        return {}
    # training reads the student anyway; only the teacher's ids cost more
    single_pass = seconds["ours"] + max(0.0, seconds["student at ids"] - seconds["student"])
    return {
        "over the product": seconds["ours"] / seconds["product"],
        "two contexts": seconds["naive"] / seconds["two contexts"],
        "single pass": seconds["naive"] / single_pass,
    }


def build_scoring_arms(head_inputs: HeadInputs, chunk_rows: int) -> dict[str, Any]:
    student, head, observed = head_inputs.student, head_inputs.head, head_inputs.observed
    ids = topk_stats(head_inputs.teacher, head, observed, k=HEAD_TOP_K).ids
    return {
        "product": lambda: run_product(head_inputs, LOGITS_BYTES),
        "ours": lambda: topk_stats(head_inputs.teacher, head, observed, k=HEAD_TOP_K),
        "naive": lambda: run_naive(head_inputs, chunk_rows),
        "two contexts": lambda: score_two_contexts(head_inputs, LOGITS_BYTES),
        "student": lambda: stats_at(student, head, observed),
        "student at ids": lambda: stats_at(student, head, observed, ids=[ids]),
    }


def time_on_cpu(dtype: torch.dtype, rounds: int, num_tokens: int) -> dict[str, float]:
    return min_cpu_seconds(
        build_scoring_arms(build_head_inputs(num_tokens, HIDDEN_SIZE, VOCAB_SIZE, dtype=dtype), num_tokens), rounds
    )


def time_on_cuda(rounds: int) -> dict[str, float]:
    """At the size of a 4B model; the naive way in chunks of 1024 tokens."""
    if not torch.cuda.is_available():
        return {}
    return median_cuda_seconds(
        build_scoring_arms(build_head_inputs(8192, 2560, VOCAB_SIZE, dtype=torch.bfloat16, device="cuda"), 1024), rounds
    )


def measure_memory() -> dict[str, Any]:
    """B3; every arm runs in a new process."""
    sgcd_peak, sgcd_half_peak = (
        run_in_new_process("rows", "ours", num_tokens, _SMALL_LOGITS_BYTES) for num_tokens in (1024, 512)
    )
    all_scoring, backbone = (
        run_in_new_process("rollout", "scored", _SMALL_LOGITS_BYTES),
        run_in_new_process("rollout", "backbone", _SMALL_LOGITS_BYTES),
    )
    cases = [
        at_least(
            "naive over ours, 1024 tokens, float32",
            run_in_new_process("rows", "naive", 1024, _SMALL_LOGITS_BYTES) / sgcd_peak,
            50,
        ),
        at_most("1024 tokens over 512", sgcd_peak / sgcd_half_peak, 1.0),
        at_most(
            "8k-token rollout, both contexts, head of a 4B model, GB beyond the backbone",
            (all_scoring - backbone) / _GB,
            1,
        ),
    ]
    note = f"scoring.logits_bytes is {_SMALL_LOGITS_BYTES:,} here. {describe_slowdown()}" + (
        "" if torch.cuda.is_available() else " " + _NO_CUDA_NOTE
    )
    return {"B3": summarize_cases("peak of memory", cases, note)}


def describe_slowdown() -> str:
    """How much slower the small budget is."""
    slowdowns: list[str] = []
    for name in ("float32", "bfloat16"):
        head_inputs = build_head_inputs(256, HIDDEN_SIZE, VOCAB_SIZE, dtype=getattr(torch, name))
        seconds = min_cpu_seconds(
            {
                "small": partial(score_two_contexts, head_inputs, _SMALL_LOGITS_BYTES),
                "usual": partial(score_two_contexts, head_inputs, LOGITS_BYTES),
            },
            2,
            1,
        )
        slowdowns.append(f"{seconds['small'] / seconds['usual']:.2f} in {name}")
    return f"Over the time that two contexts take with {LOGITS_BYTES:,}: {', '.join(slowdowns)}."


def measure_errors(device: str = "cpu", vocab_size: int = 65_536) -> dict[str, Any]:
    """B4: the divergence against float64, from the same weights and hidden states."""
    bf16_inputs, fp32_inputs = (
        build_head_inputs(128, HIDDEN_SIZE, vocab_size, dtype=dtype, device=device)
        for dtype in (torch.bfloat16, torch.float32)
    )
    true_divergence, ids = score_divergence_in_full(bf16_inputs, torch.float64)
    sgcd_divergence, our_ids = score_divergence(bf16_inputs)
    bf16_divergence, bf16_ids = score_divergence_in_full(bf16_inputs, torch.bfloat16)
    error = float((sgcd_divergence.double() - true_divergence).abs().max())
    exact, exact_ids = score_divergence_in_full(fp32_inputs, torch.float64)
    our_fp32, our_fp32_ids = score_divergence(fp32_inputs)
    cases = [
        at_least(
            "error of bfloat16 logits over ours, weights in bfloat16",
            float((bf16_divergence - true_divergence).abs().max()) / error,
            50,
        ),
        at_least("rows with the same K ids, weights in bfloat16", float((our_ids == ids).all(-1).float().mean()), 0.99),
        at_most("error in float32", float((our_fp32.double() - exact).abs().max()), 1e-5),
        at_least("rows with the same K ids, float32", float((our_fp32_ids == exact_ids).all(-1).float().mean()), 0.99),
    ]
    matching_share = float((bf16_ids == ids).all(-1).float().mean())
    return {
        "B4": summarize_cases(
            "errors of the divergence", cases, f"With bfloat16 logits {matching_share:.2f} of rows have the same ids."
        )
    }
