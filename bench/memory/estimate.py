"""Compares the memory estimate of `sgcd check` with the peak of two training steps, on models with random weights.

    python bench/memory/estimate.py [CASE ...]

Prints a row for each case: parameters, bytes estimated and measured beyond the process itself, and their ratio: as the
allocator is, and with freed memory returned to the system at once. Sampling is left out.
"""

import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig, Qwen3Config, Qwen3ForCausalLM

from sgcd.bench.timing import measure_peak_memory
from sgcd.credit_records import Credit, Signal
from sgcd.learn.policy.lora import add_adapter
from sgcd.learn.policy.memory_estimate import MemoryInputs, estimate_memory
from sgcd.learn.scoring.forward import ForwardConfig
from sgcd.learn.scoring.logits.chunks import LOGITS_BYTES
from sgcd.learn.settings import LoraSettings, OptimizerSettings, SurrogateSettings
from sgcd.learn.training.gradient import CreditedGroup, GradientAccumulator, accumulate_credited_group
from sgcd.learn.training.optimizer import build_optimizer, optimizer_step
from sgcd.learn.training.surrogate import BatchSize
from sgcd.records import Rollout, Verdict

_RETURNED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_VOCAB_SIZE, _PROMPT_TOKENS, _NUM_STEPS = 8192, 8, 2


@dataclass(frozen=True)
class MemoryCase:
    """A model and the rows that it learns from."""

    width: int
    num_layers: int
    length: int
    rows_per_batch: int = 2
    is_hybrid: bool = False
    rank: int = 0
    is_checkpointed: bool = False

    @property
    def lora(self) -> LoraSettings:
        return LoraSettings(rank=self.rank)

    def build_config(self) -> Any:
        shape: dict[str, Any] = {
            "vocab_size": _VOCAB_SIZE,
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.width // 64,
            "num_key_value_heads": self.width // 128,
            "head_dim": 64,
            "tie_word_embeddings": True,
        }
        if not self.is_hybrid:
            return Qwen3Config(**shape)
        linear: dict[str, Any] = {"linear_num_key_heads": self.width // 64, "linear_num_value_heads": self.width // 64}
        heads: dict[str, Any] = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
        return Qwen3_5TextConfig(**shape, **linear, **heads)


CASES = {
    "qwen3": MemoryCase(384, 4, 512),
    "qwen3, lora": MemoryCase(384, 4, 512, rank=8),
    "qwen3.5": MemoryCase(384, 4, 512, is_hybrid=True),
    "qwen3.5, lora": MemoryCase(384, 4, 512, is_hybrid=True, rank=8),
    "qwen3, checkpointed": MemoryCase(384, 4, 512, is_checkpointed=True),
    "larger qwen3": MemoryCase(640, 8, 1024),
    "larger qwen3, lora": MemoryCase(640, 8, 1024, rank=8),
}


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--measure":
        print(json.dumps(measure_training(CASES[sys.argv[2]])))
        return 0
    for name in sys.argv[1:] or CASES:
        case, parts = CASES[name], list[str]()
        estimate = estimate_memory(case.build_config(), build_inputs(case))
        estimated = estimate.total - estimate.process
        for added in ({}, _RETURNED_AT_ONCE):
            command = [sys.executable, __file__, "--measure", name]
            measured = json.loads(subprocess.run(command, env=os.environ | added, stdout=-1, check=True).stdout)
            parts.append(f"{measured / 1e6:.0f} | {estimated / measured:.2f}")
        print(f"| {name} | {estimate.weights / 4e6:.0f} M | {estimated / 1e6:.0f} | {' | '.join(parts)} |", flush=True)
    return 0


def build_inputs(case: MemoryCase) -> MemoryInputs:
    return MemoryInputs(
        dtype=torch.float32,
        attn_implementation=None,
        gradient_checkpointing=case.is_checkpointed,
        lora=case.lora,
        num_slots=0,
        max_length=case.length,
        group_size=2 * case.rows_per_batch,
        training_tokens=case.rows_per_batch * case.length,
        scoring_tokens=case.rows_per_batch * case.length,
        logits_bytes=LOGITS_BYTES,
        keeps_initial_policy=False,
    )


def measure_training(case: MemoryCase) -> int:
    """Peak bytes of building the model and its optimizer, and of the steps, after a tiny model has done the same."""
    torch.set_num_threads(1)
    train(replace(case, width=128, num_layers=4, length=16))
    gc.collect()
    return measure_peak_memory(lambda: train(case))


def train(case: MemoryCase) -> None:
    config = case.build_config()
    model: Any = (Qwen3_5ForCausalLM if case.is_hybrid else Qwen3ForCausalLM)(config).eval()
    if case.is_checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if case.rank:
        add_adapter(model, case.lora, seed=0)
    micro_batch_tokens = case.rows_per_batch * case.length
    settings = OptimizerSettings(micro_batch_tokens=micro_batch_tokens)
    optimizer = build_optimizer(model, settings)
    for step in range(1, _NUM_STEPS + 1):
        batch = build_batch(case)
        gradient = GradientAccumulator(
            model=model,
            surrogate=SurrogateSettings(),
            size=BatchSize.of(batch.rollouts, max_tokens=case.length),
            config=ForwardConfig(micro_batch_tokens=micro_batch_tokens),
        )
        accumulate_credited_group(gradient, batch)
        optimizer_step(optimizer, gradient, settings, step)


def build_batch(case: MemoryCase) -> CreditedGroup:
    rollouts = [build_rollout(case, sibling) for sibling in range(2 * case.rows_per_batch)]
    ones = np.ones(case.length - _PROMPT_TOKENS, np.float32)
    signals = [Signal(Credit(1.0 if one.sibling % 2 else -1.0, ones)) for one in rollouts]
    return CreditedGroup(rollouts=rollouts, signals=signals)


def build_rollout(case: MemoryCase, sibling: int) -> Rollout:
    """A rollout of drawn tokens, nearly all of them the policy's."""
    rng = np.random.default_rng(sibling)
    num_response = case.length - _PROMPT_TOKENS
    return Rollout(
        task="t", category="action", sibling=sibling, seed=sibling,
        prompt=rng.integers(0, _VOCAB_SIZE, _PROMPT_TOKENS).astype(np.int32), reference_position=1,
        response=rng.integers(0, _VOCAB_SIZE, num_response).astype(np.int32),
        response_mask=np.ones(num_response, np.bool_), token_kinds=np.full(num_response, 2, np.uint8),
        sampling_logprobs=np.zeros(num_response, np.float32), turns=(), messages=(), tools=(), end_reason="answered",
        verdict=Verdict(1.0, True),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
