"""The only package that uses a tokenizer or a chat template: encode a conversation, parse a turn, decode text."""

from sgcd.chat.chat import Chat, EncodedPrompt
from sgcd.chat.parse_calls import parse_word_call

__all__ = ["Chat", "EncodedPrompt", "parse_word_call"]
