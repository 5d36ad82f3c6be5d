"""Builds the lab's small policy: a word tokenizer, a prefix-preserving template, a tiny Qwen3."""

from collections.abc import Mapping, Sequence
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


def build_lab_tokenizer(vocabulary: Sequence[str] | None = None) -> Any:
    """A tokenizer with one id per word or stop, so that decoded ids always encode to the same ids."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    token_ids = {word: index for index, word in enumerate(vocabulary or words.build_vocabulary())}
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


def build_lab_model(seed: int, vocab_size: int, layers: int = 3, hidden_size: int = 96) -> Any:
    """A new policy with random weights: three heads, by default three layers and hidden size 96."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=8 * hidden_size // 3,
        num_hidden_layers=layers,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=hidden_size // 3,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.SPECIAL_TOKENS.index("<|end|>"),
        pad_token_id=words.SPECIAL_TOKENS.index("<pad>"),
    )
    return Qwen3ForCausalLM(config).float()


def build_warm_start_optimizers(model: Any, peak_lr: Mapping[str, float]) -> list[Any]:
    """Muon for matrices, Adam for the rest."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    other_parameters = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=peak_lr["muon"], weight_decay=0.0),
        torch.optim.AdamW(other_parameters, lr=peak_lr["adam"], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def step_warm_start_optimizers(optimizers: Sequence[Any], peak_lr: Mapping[str, float], lr_scale: float) -> None:
    """One step of each at its share of the peak; the gradients are used up."""
    for optimizer, peak in zip(optimizers, peak_lr.values(), strict=True):
        optimizer.param_groups[0]["lr"] = peak * lr_scale
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
