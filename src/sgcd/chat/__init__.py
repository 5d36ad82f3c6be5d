"""The only room that sees a tokenizer or a chat template: open a conversation, extend it, read a call, plain text."""

from sgcd.chat.chat import Chat, EncodedPrompt
from sgcd.chat.parse_calls import parse_word_call

__all__ = ["Chat", "EncodedPrompt", "parse_word_call"]
