"""Chats whose tokenizers cut words into pieces and characters into bytes, as those of real policies do."""

from functools import cache
from typing import Literal

from sgcd.chat import Chat
from sgcd.lab.words import SPECIAL_TOKENS

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if not m.unfinished %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXT = "the booking b12 is for mia , who pays 4711 at the café and find_user name mia one moment please"


@cache
def chat(kind: Literal["bytes", "fallback"] = "bytes") -> Chat:
    """Byte-level pieces as Qwen has them; or pieces of words that fall back to bytes, as Llama has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(SPECIAL_TOKENS)
    if kind == "bytes":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, special_tokens=special)
    else:
        inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
        inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        every = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=[*special, *every])
    inner.train_from_iterator([TEXT] * 4, trainer)
    marks = [word for word in special if word not in ("<pad>", "<unk>", "<|end|>")]
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|end|>",
        additional_special_tokens=marks,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return Chat(made, f"subwords with {kind}")
