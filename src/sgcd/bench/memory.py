"""Measures the peak memory of scoring beyond its inputs; `python -m sgcd.bench.memory` measures one arm."""

import json
import sys
from typing import Any

import numpy as np
import torch

from sgcd.bench.arms import build_head_inputs, run_naive, score_two_contexts
from sgcd.bench.curves import StepSize, measure_step_memory
from sgcd.bench.sharing import measure_sharing_memory
from sgcd.bench.timing import device_name, measure_peak_memory
from sgcd.learn.policy.head import get_backbone
from sgcd.learn.scoring.forward import ForwardConfig, pad_batch
from sgcd.learn.scoring.student import score_student_no_grad
from sgcd.learn.scoring.teacher import score_teacher, with_teacher_prompt
from sgcd.learn.scoring.teacher_inputs import TeacherInput
from sgcd.records import Rollout, Verdict

VOCAB_SIZE, HIDDEN_SIZE = 248_320, 1024
_PROMPT_TOKENS, _REFERENCE_TOKENS, _RESPONSE_TOKENS = 256, 256, 7680


def measure_head(arm: str, num_tokens: int, logits_bytes: int) -> int:
    """Peak bytes of scoring both contexts from given hidden states, by the naive way or by sgcd."""
    head_inputs = build_head_inputs(num_tokens, HIDDEN_SIZE, VOCAB_SIZE, dtype=torch.float32, device=device_name())
    if arm == "naive":
        return measure_peak_memory(lambda: run_naive(head_inputs, num_tokens))
    return measure_peak_memory(lambda: score_two_contexts(head_inputs, logits_bytes))


def build_hybrid_model() -> Any:
    """Two layers of a hybrid model, with the head of Qwen3.5-4B."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {"hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 2, "head_dim": 256}
    heads: dict[str, Any] = {"num_attention_heads": 16, "num_key_value_heads": 4, "tie_word_embeddings": True}
    kinds = ["linear_attention", "full_attention"]
    config = AutoConfig.for_model("qwen3_5_text", vocab_size=VOCAB_SIZE, layer_types=kinds, **shape, **heads)
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def build_long_rollout() -> Rollout:
    rng = np.random.default_rng(1)
    mask = np.tile(np.repeat([True, False], [96, 32]), _RESPONSE_TOKENS // 128)
    return Rollout(
        task="t",
        category="action",
        sibling=0,
        seed=0,
        prompt=rng.integers(0, VOCAB_SIZE, _PROMPT_TOKENS).astype(np.int32),
        reference_position=_PROMPT_TOKENS // 2,
        response=rng.integers(0, VOCAB_SIZE, _RESPONSE_TOKENS).astype(np.int32),
        response_mask=mask,
        token_kinds=np.where(mask, 2, 0).astype(np.uint8),
        sampling_logprobs=np.zeros(_RESPONSE_TOKENS, np.float32),
        turns=(),
        messages=(),
        tools=(),
        end_reason="answered",
        verdict=Verdict(1.0, True),
    )


@torch.no_grad()
def measure_rollout(arm: str, logits_bytes: int) -> int:
    """Peak bytes of an 8k-token rollout in both contexts: of the backbone alone, or of all scoring."""
    model, random_rollout = build_hybrid_model().to(device_name()), build_long_rollout()
    reference = np.full(_REFERENCE_TOKENS, 7, np.int32)
    position = random_rollout.reference_position
    teacher_ids = np.concatenate(
        [random_rollout.prompt[:position], reference, random_rollout.prompt[position:], random_rollout.response]
    )

    teacher_input = TeacherInput(random_rollout, teacher_ids, np.ones(_RESPONSE_TOKENS, np.bool_))
    config = ForwardConfig(1.0, 2**15, logits_bytes)

    def run_backbone() -> None:
        for context in (with_teacher_prompt(teacher_input), random_rollout):
            get_backbone(model)(input_ids=pad_batch([context]).input_ids.to(model.device), use_cache=False)

    def run_scoring() -> None:
        teacher_outcomes = score_teacher(model, [teacher_input], k=100, config=config)
        score_student_no_grad(model, [random_rollout], [teacher_outcomes], divergence="reverse_kl", config=config)

    return measure_peak_memory(run_backbone if arm == "backbone" else run_scoring)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, arm, *numbers = sys.argv[1:]
    match what:
        case "rollout":
            print(measure_rollout(arm, int(numbers[0])))
        case "sharing":
            print(measure_sharing_memory(arm, float(numbers[0])))
        case "curve":
            print(measure_step_memory(StepSize(**json.loads(arm))))
        case _:
            print(measure_head(arm, int(numbers[0]), int(numbers[1])))
