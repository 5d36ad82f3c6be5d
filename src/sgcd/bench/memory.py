"""How much memory scoring takes beyond its inputs; python -m sgcd.bench.memory ARM ... measures one arm."""

import sys
from typing import Any

import numpy as np
import torch

from sgcd.bench.arms import inputs, naive, two_contexts
from sgcd.bench.timing import peak
from sgcd.learn.batch import grid
from sgcd.learn.head import backbone_of
from sgcd.learn.student import score
from sgcd.learn.teacher import after, teach
from sgcd.records import Rollout, Verdict

SIZE, WIDTH = 248_320, 1024
PROMPT, REFERENCE, RESPONSE = 256, 256, 7680


def rows(arm: str, tokens: int, room: int) -> int:
    """Both contexts, naive or ours."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = inputs(tokens, WIDTH, SIZE, torch.float32, device)
    if arm == "naive":
        return peak(lambda: naive(given, tokens))
    return peak(lambda: two_contexts(given, room))


def large() -> Any:
    """Two layers of a hybrid model, with the head of Qwen3.5-4B."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {"hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 2, "head_dim": 256}
    heads: dict[str, Any] = {"num_attention_heads": 16, "num_key_value_heads": 4, "tie_word_embeddings": True}
    kinds = ["linear_attention", "full_attention"]
    config = AutoConfig.for_model("qwen3_5_text", vocab_size=SIZE, layer_types=kinds, **shape, **heads)
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def long_rollout() -> Rollout:
    draws = np.random.default_rng(1)
    mask = np.tile(np.repeat([True, False], [96, 32]), RESPONSE // 128)
    return Rollout(
        task="t",
        category="action",
        sibling=0,
        seed=0,
        prompt=draws.integers(0, SIZE, PROMPT).astype(np.int32),
        insert_at=PROMPT // 2,
        response=draws.integers(0, SIZE, RESPONSE).astype(np.int32),
        mask=mask,
        kinds=np.where(mask, 2, 0).astype(np.uint8),
        sampled_logp=np.zeros(RESPONSE, np.float32),
        turns=(),
        messages=(),
        tools=(),
        ending="answered",
        verdict=Verdict(1.0, True),
    )


@torch.no_grad()
def rollout(arm: str, room: int) -> int:
    """An 8k-token rollout in both contexts: the backbone alone, or all of scoring."""
    model, played = large(), long_rollout()
    reference = np.full(REFERENCE, 7, np.int32)
    at = played.insert_at
    row = np.concatenate([played.prompt[:at], reference, played.prompt[at:], played.response])

    def backbone() -> None:
        for each in (after(played, row), played):
            backbone_of(model)(input_ids=grid([each]).ids, use_cache=False)

    def scored() -> None:
        lessons = teach(model, [played], [row], 1.0, 2**15, 100, room)
        score(model, [played], [lessons], 1.0, 2**15, "reverse_kl", room)

    return peak(backbone if arm == "backbone" else scored)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, arm, *numbers = sys.argv[1:]
    print(rollout(arm, int(numbers[0])) if what == "rollout" else rows(arm, int(numbers[0]), int(numbers[1])))
