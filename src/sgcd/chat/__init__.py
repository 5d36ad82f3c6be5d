"""The only package that uses a tokenizer or a chat template: encode a conversation, parse a turn, decode text."""

from sgcd.chat.call_formats import parse_word_call
from sgcd.chat.chat import Chat, EncodedPrompt

__all__ = ["Chat", "EncodedPrompt", "parse_word_call"]
