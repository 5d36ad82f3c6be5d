"""A tiny random policy for which whole calls are tokens, each with a share of its own."""

import json
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

from helpers import chats
from sgcd.chat import Chat

END = "<|im_end|>"


def call_text(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def save_call_policy(folder: Path, shares: Mapping[str, float], text: str, vocab_size: int = 2000) -> None:
    """Save a policy that samples the words by their shares; `text` is what its tokenizer learns its pieces from."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sgcd.learn.policy.load import Policy, save_policy

    template = (chats.TEMPLATES / "plain.jinja").read_text(encoding="utf-8")
    calls = [word for word in shares if word.startswith(("<tool_call>", "```"))]
    tokenizer = chats.tokenizer(chats.QWEN, [*chats.QWEN_ADDED[:2], *calls], text=text, vocab_size=vocab_size)
    tokenizer.chat_template = template
    chat = Chat(tokenizer, "a tiny policy")
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    config = Qwen3Config(
        vocab_size=chat.vocab_size,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=chat.end_id,
        pad_token_id=chat.pad_id,
        **shape,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 4.0  # the same everywhere, so its column of the head acts as a bias
        model.lm_head.weight.zero_()
        for word, share in shares.items():
            model.lm_head.weight[chat.tokenizer.convert_tokens_to_ids(word), 0] = log(chat.vocab_size * share * 4) / 4.0
    save_policy(Policy(model.eval(), chat), folder, {})
