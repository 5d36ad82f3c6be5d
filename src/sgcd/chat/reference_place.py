"""Finds the place of a reference in a prompt: in the task's message, never behind a mark of a call."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.chat.call_formats import Tools
from sgcd.chat.template import PROBE_TEXT, RenderFn
from sgcd.chat.turn_parser import decode_ids
from sgcd.errors import TemplateError
from sgcd.records import Message, TokenIds

_MAX_MARK_TOKENS = 32
"""Ids that are decoded to see whether a mark of a call stands before a place."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as text and as ids, and for each id the place of its first character in the text."""

    messages: tuple[Message, ...]
    tools: Tools
    text: str
    ids: TokenIds
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReferencePlaces:
    """Finds places in the prompts of one tokenizer and template."""

    tokenizer: Any
    render: RenderFn
    end_id: int
    marks: tuple[str, ...]
    """Marks of calls. A teacher copies what follows a mark in its prompt to where the policy has written that mark."""
    name: str

    def find_place(self, prompt: RenderedPrompt) -> int:
        """The index in the ids of a reference: before the end of the last message of a user.

        The start of the first message where no user speaks, or where a mark of a call would stand before that place.
        """
        for position in self._candidate_places(prompt):
            text_before = decode_ids(self.tokenizer, prompt.ids[max(0, position - _MAX_MARK_TOKENS) : position])
            if not text_before.rstrip().endswith(self.marks):
                return position
        raise TemplateError(
            f"{self.name}: the template writes a mark of a call before the first message, so a reference would have no "
            "place; use a template that lists its tools elsewhere"
        )

    def _candidate_places(self, prompt: RenderedPrompt) -> Iterator[int]:
        users = [index for index, message in enumerate(prompt.messages) if message["role"] == "user"]
        if users:
            yield self._find_message_end(prompt, users[-1])
        yield int(np.searchsorted(prompt.starts, len(self._render_before(prompt, 0, after_text=False))))

    def _find_message_end(self, prompt: RenderedPrompt, index: int) -> int:
        """The index in the ids of the end of the turn that message `index` is in."""
        before = self._render_before(prompt, index, after_text=True)
        ids_before = np.asarray(self.tokenizer(before, add_special_tokens=False)["input_ids"], np.int32)
        num_ends_before = int((ids_before == self.end_id).sum())
        ends = np.flatnonzero(prompt.ids == self.end_id)[num_ends_before:]
        if not len(ends):
            raise TemplateError(
                f"{self.name}: message {index} is not closed by an end-of-turn token; a reference would have no place"
            )
        return int(ends[0])

    def _render_before(self, prompt: RenderedPrompt, index: int, *, after_text: bool) -> str:
        """The rendered text up to the start of a message's text, or up to its end."""
        content = prompt.messages[index]["content"]
        probed = {**prompt.messages[index], "content": content + PROBE_TEXT if after_text else PROBE_TEXT + content}
        messages = [*prompt.messages[:index], probed, *prompt.messages[index + 1 :]]
        before, probe, _ = self.render(messages, prompt.tools, True).partition(PROBE_TEXT)
        if not probe:
            raise TemplateError(
                f"{self.name}: the template does not show message {index}, so no reference could go there"
            )
        return before
