"""A reference enters the teacher's prompt as ids, and nothing else of the row changes."""

import numpy as np

from sgcd.chat import Chat
from sgcd.records import Ids

HEADER = "credit reference :"
FOOTER = "end of reference ."


def block(chat: Chat, text: str) -> Ids:
    """The ids of a delimited reference, tokenised in isolation; special tokens inside it are escaped."""
    return chat.words(f"\n{HEADER}\n{text}\n{FOOTER}\n")


def insert(prompt: Ids, insert_at: int, reference: Ids) -> Ids:
    """prefix + reference + suffix, where prefix + suffix is the prompt as it was."""
    return np.concatenate([prompt[:insert_at], reference, prompt[insert_at:]]).astype(np.int32)
