"""Cost curves: time and memory of a step of SGCD against one size at a time, each with the exponent that fits it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sgcd.bench.sharing import build_group_of
from sgcd.bench.step import CREDIT_METHODS, build_bench_recipe, build_step, ignore_phase
from sgcd.bench.timing import measure_peak_memory, min_cpu_seconds, run_in_new_process
from sgcd.learn.training.optimizer import build_optimizer
from sgcd.learn.training.timers import ModelThread, StepTimer
from sgcd.records import Group, Task

_HEAD_DIM = 64


@dataclass(frozen=True, slots=True)
class StepSize:
    """What a step is over: one group, and a random Qwen3 of two layers."""

    siblings: int = 4
    prompt: int = 128
    response: int = 256
    vocabulary: int = 8192
    hidden: int = 256


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Steps that differ in one size alone."""

    name: str
    unit: str
    """What is on the x axis."""
    sizes: Sequence[StepSize]
    measure: Callable[[StepSize], float]
    """The value on the x axis."""
    expected: float = 1.0
    """The exponent that theory expects of the time, where nothing is constant."""


def count_tokens(size: StepSize) -> int:
    """Tokens of the group's tree: the prompt once, and every response."""
    return size.prompt + size.siblings * size.response


def count_layer_weights(size: StepSize) -> int:
    """Weights of the layers: 4 h^2 for attention and 9 h^2 for the rest of a layer, two layers."""
    return 2 * 13 * size.hidden**2


def _vary(name: str, values: Sequence[int], base: StepSize | None = None) -> list[StepSize]:
    return [replace(base or StepSize(), **{name: value}) for value in values]


def _share_prompt(shares: Sequence[float], length: int = 1024) -> list[StepSize]:
    """Eight siblings of one length, whose prompt is a share of it."""
    prompts = [max(1, round(share * length)) for share in shares]
    return [StepSize(siblings=8, prompt=prompt, response=length - prompt) for prompt in prompts]


CURVES = (
    CostCurve("response length", "tokens of a response", _vary("response", (256, 512, 1024, 2048)),
              lambda size: size.response),
    CostCurve("siblings", "siblings", _vary("siblings", (2, 4, 8, 16)), lambda size: size.siblings),
    CostCurve("prompt share", "tokens of the tree, shares .9 to 0", _share_prompt((0.9, 0.8, 0.5, 0.0)), count_tokens),
    CostCurve("vocabulary", "words", _vary("vocabulary", (32_000, 64_000, 128_000, 248_000), StepSize(response=64)),
              lambda size: size.vocabulary),
    CostCurve("model size", "weights of the layers", _vary("hidden", (256, 512, 1024), StepSize(vocabulary=1024)),
              count_layer_weights),
)  # fmt: skip


def build_model(size: StepSize) -> Any:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": size.hidden, "intermediate_size": 3 * size.hidden, "num_hidden_layers": 2}
    heads = size.hidden // _HEAD_DIM
    config = Qwen3Config(
        vocab_size=size.vocabulary, num_attention_heads=heads, num_key_value_heads=max(1, heads // 2),
        head_dim=_HEAD_DIM, max_position_embeddings=32_768, **shape,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def build_sized_step(size: StepSize) -> Callable[[], None]:
    """A step of SGCD: teacher, student, gradient and optimizer."""
    model, recipe = build_model(size), build_bench_recipe()
    group = Group(Task("t", "action", {}), tuple(build_group_of(size.siblings, size.prompt, size.response)))
    optimizer, timer = build_optimizer(model, recipe.optimizer), StepTimer(ModelThread(), ignore_phase)
    return build_step(model, [group], CREDIT_METHODS["sgcd"], recipe=recipe, optimizer=optimizer, timer=timer)


def measure_step_memory(size: StepSize) -> int:
    """Peak bytes of a step beyond the model, its gradients and its moments."""
    run = build_sized_step(size)
    run()
    return measure_peak_memory(run)


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms: cost = c size^exponent."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def measure_curve(curve: CostCurve, rounds: int) -> dict[str, Any]:
    """Seconds and bytes of each size; rounds alternate between sizes, after one that warms up."""
    arms = {str(index): build_sized_step(size) for index, size in enumerate(curve.sizes)}
    seconds = list(min_cpu_seconds(arms, rounds, 1).values())
    arms.clear()
    peaks = [run_in_new_process("curve", json.dumps(asdict(size))) for size in curve.sizes]
    return describe_curve(curve, seconds, peaks)


def describe_curve(curve: CostCurve, seconds: Sequence[float], peaks: Sequence[float]) -> dict[str, Any]:
    """The figures of a curve, with the exponents that fit them."""
    xs = [curve.measure(size) for size in curve.sizes]
    return {
        "name": curve.name,
        "unit": curve.unit,
        "expected": curve.expected,
        "sizes": [asdict(size) for size in curve.sizes],
        "x": xs,
        "tokens": [count_tokens(size) for size in curve.sizes],
        "seconds": list(seconds),
        "bytes": list(peaks),
        "time exponent": fit_exponent(xs, seconds),
        "memory exponent": fit_exponent(xs, peaks),
    }
