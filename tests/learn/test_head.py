"""Backbone and head together are the model, for every kind that is trained here; what is not understood is refused."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sgcd.errors import PolicyError
from sgcd.learn.policy.head import check_head, get_backbone, get_head

SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": {"tie_word_embeddings": True},
    "qwen3_5_text": {**LINEAR, "layer_types": ["linear_attention", "full_attention"]},
    "llama": {"tie_word_embeddings": False},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 50.0},
    "cohere": {"logit_scale": 0.5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "granite": {"logits_scaling": 4.0},
}


def made(kind: str) -> Any:
    torch.manual_seed(2)
    config = AutoConfig.for_model(kind, **{**SHAPE, **KINDS[kind]})
    return AutoModelForCausalLM.from_config(config).double().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_the_model_s_own(kind: str) -> None:
    model = made(kind)
    check_head(model)
    ids = torch.randint(0, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0]
        hidden = get_backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
        everything = torch.arange(60).expand(9, -1)
        assert torch.allclose(get_head(model).logits_at(hidden, everything, 1.0), expected, atol=1e-12)


def test_an_adapter_s_head_and_backbone_are_found_inside_it() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = peft.get_peft_model(made("qwen3"), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    check_head(model)
    wrong = peft.get_peft_model(made("llama"), peft.LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(PolicyError, match=r"the head has to be a plain linear layer, got Linear"):
        get_head(wrong)


def test_logits_that_are_no_numbers_are_refused() -> None:
    model = made("qwen3")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(PolicyError, match=r"its logits are not finite \(NaN or infinity\)"):
        check_head(model)


def test_what_is_done_to_logits_and_not_known_is_refused() -> None:
    model = made("llama")
    model.lm_head.register_forward_hook(lambda _, given, out: out * 2)
    with pytest.raises(PolicyError, match="what LlamaForCausalLM does to its logits after the head is not known here"):
        check_head(model)
