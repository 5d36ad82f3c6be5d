"""Random tiny models of common families, each with its special layers."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHAPE: Any = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
WIDE: Any = {**SHAPE, "head_dim": 8}
LINEAR: Any = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MIXED: Any = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 7}
Make = Callable[[int], Any]
FAMILIES: dict[str, Make] = {
    "qwen2.5": lambda size: Qwen2ForCausalLM(Qwen2Config(vocab_size=size, **SHAPE)),  # biases beside q, k and v
    "qwen3": lambda size: Qwen3ForCausalLM(Qwen3Config(vocab_size=size, tie_word_embeddings=True, **WIDE)),
    "qwen3.5": lambda size: Qwen3_5ForCausalLM(Qwen3_5TextConfig(vocab_size=size, **{**WIDE, **LINEAR})),
    "llama": lambda size: LlamaForCausalLM(LlamaConfig(vocab_size=size, **WIDE)),
    "mistral": lambda size: MistralForCausalLM(MistralConfig(vocab_size=size, sliding_window=7, **WIDE)),
    "gemma2": lambda size: Gemma2ForCausalLM(  # softcaps on attention and head, a tied head
        Gemma2Config(vocab_size=size, attn_logit_softcapping=5.0, final_logit_softcapping=4.0, **WIDE, **MIXED)
    ),
    "gemma3": lambda size: Gemma3ForCausalLM(
        Gemma3TextConfig(vocab_size=size, final_logit_softcapping=4.0, **WIDE, **MIXED)
    ),
}
EXACT = {name: {"qwen3.5": 1e-4, "gemma2": 1e-6}.get(name, 1e-9) for name in FAMILIES}
"""How far two ways to the same number may be apart in float64; linear and eager attention have float32 inside."""


def family(name: str, size: int = 60, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(11)
    return FAMILIES[name](size).to(dtype).eval()
