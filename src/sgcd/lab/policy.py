"""Builds the lab's small policy: a word tokenizer, a prefix-preserving template, a tiny Qwen3."""

from pathlib import Path
from typing import Any

from sgcd.chat import Chat
from sgcd.lab import words

STARTS_DIR = Path(__file__).parent / "starts"

LAB_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|> {{ message.content }}{% if not message.unfinished %} <|end|>
{% endif %}
{%- else -%}
<|{{ message.role }}|> {{ message.content }}
{%- if loop.first and tools %} tools :
{%- for tool in tools %} {{ tool.function.name }}
{%- for name in tool.function.parameters.properties %} {{ name }}{% endfor %} ,
{%- endfor %}
{%- endif %} <|end|>
{% endif %}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


def build_lab_tokenizer() -> Any:
    """A tokenizer with one id per word or stop, so that decoded ids always encode to the same ids."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    token_ids = {word: index for index, word in enumerate(words.build_vocabulary())}
    word_tokenizer = Tokenizer(models.WordLevel(token_ids, unk_token="<unk>"))
    word_tokenizer.normalizer = normalizers.Lowercase()
    word_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[.,:]"), "isolated")]
    )
    word_tokenizer.add_special_tokens(list(words.SPECIAL_TOKENS))
    hf_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|end|>",
        additional_special_tokens=[word for word in words.SPECIAL_TOKENS if word not in ("<pad>", "<unk>", "<|end|>")],
        clean_up_tokenization_spaces=False,
    )
    hf_tokenizer.chat_template = LAB_CHAT_TEMPLATE
    return hf_tokenizer


def build_lab_chat() -> Chat:
    return Chat(build_lab_tokenizer(), "the lab's tokenizer")


def build_lab_model(seed: int, vocab_size: int) -> Any:
    """A new policy with random weights: three layers, three heads, hidden size 96."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.SPECIAL_TOKENS.index("<|end|>"),
        pad_token_id=words.SPECIAL_TOKENS.index("<pad>"),
    )
    return Qwen3ForCausalLM(config).float()
