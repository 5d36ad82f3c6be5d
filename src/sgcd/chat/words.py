"""A chat without a tokenizer: its tokens are words. It serves where rollouts are compared and no model reads them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgcd.chat.call_formats import HERMES_FORMAT, Tools
from sgcd.chat.chat import Chat, EncodedPrompt
from sgcd.chat.turn_parser import TokenSpans
from sgcd.chat.turn_writer import write_json_call
from sgcd.records import Message, ParsedTurn, TokenIds

_WORD = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")
"""A word or a mark, with the space before it."""
TOKENIZER_FOLDER = "tokenizer"
"""In a folder whose policy lies elsewhere: its tokenizer and template."""
WORDS_FILE = "words.json"
"""In a folder whose tokens are words: the words that the ids stand for."""
_END = "\n"
"""What ends a turn."""


class WordChat(Chat):
    """The ids of words are given in the order in which they come. Calls are written in Hermes' format."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = [*words] or [_END]
        self._ids = {word: number for number, word in enumerate(self.words)}
        self.name = "words"
        self.template = ""
        self.call_format = HERMES_FORMAT
        self.end_id = 0
        self.end_ids = (0,)
        self._opens_thinking = False

    def encode_prompt(self, messages: Sequence[Message], tools: Tools) -> EncodedPrompt:
        """A prompt has no ids: nothing reads it."""
        return EncodedPrompt(np.zeros(0, np.int32), 0, tuple(messages))

    def encode_reply(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> tuple[TokenIds, tuple[Message, ...]]:
        """What answers a turn."""
        return self._encode("\n".join(str(message["content"]) for message in messages)), tuple(messages)

    def write_turn(self, turn: ParsedTurn) -> str:
        """Thinking, text and calls as Hermes' format has them."""
        opening, closing = HERMES_FORMAT.thinking_marks
        thinking = f"{opening}{turn.thinking}{closing}\n" if turn.thinking else ""
        return thinking + "".join([turn.text, *map(write_json_call, turn.calls)]).lstrip("\n")

    def encode_turn(self, text: str) -> TokenIds:
        """The words of a turn, and its end."""
        return np.append(self._encode(text.rstrip()), np.int32(self.end_id))

    def turn_text(self, ids: TokenIds) -> str:
        """The text of a turn's words."""
        return self.decode(ids)

    def roundtrips(self, ids: TokenIds) -> bool:
        """Words always come back."""
        return True

    def decode(self, ids: TokenIds) -> str:
        """The words as one text."""
        return "".join(self._list_words(ids))

    def decode_with_spans(self, ids: TokenIds) -> tuple[str, TokenSpans]:
        """The text, and the span of each word in it."""
        stops = np.cumsum([len(word) for word in self._list_words(ids)], dtype=np.int64)
        starts = np.concatenate([np.zeros(min(1, len(stops)), np.int64), stops[:-1]])
        return self.decode(ids), np.stack([starts, stops], axis=1).reshape(-1, 2)

    def encode_text(self, text: str) -> TokenIds:
        """The words of a text."""
        return self._encode(text)

    def _list_words(self, ids: TokenIds) -> list[str]:
        numbers: list[int] = ids.tolist()
        return [self.words[number] for number in numbers]

    def _encode(self, text: str) -> TokenIds:
        return np.array([self._identify(word) for word in _WORD.findall(text)], np.int32)

    def _identify(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self.words)
            self.words.append(word)
        return self._ids[word]


def load_words(folder: Path) -> WordChat:
    """The chat of a folder whose tokens are words."""
    return WordChat(json.loads((folder / WORDS_FILE).read_bytes()))
