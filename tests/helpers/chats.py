"""Chats as families of models have them: byte-level tokenizers built here, templates with the same behaviours."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.chat import Chat
from sgcd.records import Message, ParsedTurn, TokenIds

TEMPLATES = Path(__file__).parents[1] / "templates"
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_ADDED = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
HEADERS = ["<|start_header_id|>", "<|end_header_id|>"]
LLAMA = ["<|begin_of_text|>", *HEADERS, "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|finetune_right_pad_id|>"]
GEMMA = ["<bos>", "<pad>", "<start_of_turn>", "<end_of_turn>"]
FAMILIES = {
    "plain": (QWEN, QWEN_ADDED[:2]),
    "forgetful": (QWEN, QWEN_ADDED),
    "opened": (QWEN, QWEN_ADDED),
    "headers": (LLAMA, []),
    "pairs": (GEMMA, ["<table>", "   "]),
}
TEXT = (
    "The booking b12 is for Mia, who pays 4711 at the café. <think>\nI look it up.\n</think>\n\n<tool_call>\n"
    '{"name": "find", "arguments": {"who": "Mia", "count": 3}}\n</tool_call>\n<function=find>\n<parameter=who>\n'
)
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "Finds.",
            "parameters": {
                "type": "object",
                "properties": {"who": {"type": "string"}, "count": {"type": "integer"}, "deep": {"type": "boolean"}},
                "required": ["who"],
            },
        },
    },
)
OPENING = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello, I am Zoë."})


def _pre() -> Any:
    """Words with the space before them, digits one by one, line breaks together: about as Qwen and Llama cut texts."""
    from tokenizers import Regex, pre_tokenizers

    cut = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(cut, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@cache
def _pieces(text: str, vocab_size: int) -> tuple[dict[str, int], list[Any]]:
    """Pieces of bytes, learnt from a text."""
    from json import loads

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = _pre()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator([text] * 4 + ["\n\n", "\n"] * 8, trainer)
    model_json = loads(inner.to_str())["model"]
    return model_json["vocab"], [tuple(pair) for pair in model_json["merges"]]


def tokenizer(special: Sequence[str], added: Sequence[str] = (), *, text: str = TEXT, vocab_size: int = 420) -> Any:
    """Byte-level pieces; `added` are tokens that are not special, as Qwen's marks of calls are."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary, merges = _pieces(text, vocab_size)
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = _pre()
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    named = {"bos_token": special[0]} if "bos" in special[0] or "begin" in special[0] else {}
    pads = [token for token in special if token in ("<|endoftext|>", "<pad>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=list(special),
        **named,
        **({"pad_token": pads[0]} if pads else {}),
    )


def build(template: str, special: Sequence[str], added: Sequence[str] = (), name: str = "folder") -> Chat:
    made = tokenizer(special, added)
    made.chat_template = template
    return Chat(made, name)


@cache
def chat(family: str) -> Chat:
    special, added = FAMILIES[family]
    return build((TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8"), special, added, family)


def call(chat: Chat, **arguments: Any) -> str:
    """A call of find as the family writes it."""
    from json import dumps

    arguments_json = dumps(arguments, ensure_ascii=False)
    if chat.call_format.name == "Qwen3.5":
        parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in arguments.items())
        return f"<tool_call>\n<function=find>\n{parameters}</function>\n</tool_call>"
    if chat.call_format.name == "Llama 3":
        return f'{{"name": "find", "parameters": {arguments_json}}}'
    return f'<tool_call>\n{{"name": "find", "arguments": {arguments_json}}}\n</tool_call>'


@dataclass
class Played:
    """A conversation as a rollout keeps it."""

    prompt: TokenIds
    response: TokenIds
    messages: list[Message]
    parsed_turns: list[ParsedTurn]
    exact: list[bool]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt.tolist(), *self.response.tolist()]


def converse(chat: Chat, turns: Sequence[TokenIds], replies: Sequence[Sequence[Message]], cut: bool = False) -> Played:
    """The policy says `turns`; `replies` stand between them. A last turn that was cut has no end of turn."""
    opened = chat.encode_prompt(OPENING, TOOLS)
    parts, messages = list[TokenIds](), [*opened.messages]
    parsed_turns, exact = list[ParsedTurn](), list[bool]()
    for number, turn in enumerate(turns):
        stopped = not (cut and number == len(turns) - 1)
        ids = (
            np.append(turn, np.int32(chat.end_id)).astype(np.int32)
            if stopped and not chat.has_end_token(turn)
            else turn
        )
        parsed, kinds = chat.parse_turn(ids, TOOLS)
        assert len(kinds) == len(ids)
        parsed_turns.append(parsed)
        exact.append(chat.roundtrips(ids))
        messages.append(chat.turn_message(ids, stopped))
        parts.append(ids)
        if number < len(turns) - 1:
            glue, clean = chat.encode_reply(replies[number])
            parts.append(glue)
            messages += clean
    return Played(opened.token_ids, np.concatenate(parts).astype(np.int32), messages, parsed_turns, exact)
