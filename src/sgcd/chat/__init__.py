"""The only room that sees a tokenizer or a chat template: open a conversation, extend it, read a call, plain text."""

from sgcd.chat.calls import parse_words
from sgcd.chat.chat import Chat, Opened

__all__ = ["Chat", "Opened", "parse_words"]
