"""A tokenizer and its template, as one conversation needs them: ids are only ever appended."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.chat.calls import Tools
from sgcd.chat.dialects import HERMES, LAB, Dialect, recognised
from sgcd.chat.escape import Escape, marks_of
from sgcd.chat.reading import of_tokens, read
from sgcd.chat.spelling import Spans, Spelling, plain
from sgcd.chat.template import PROBE, SEEN, TURN, USER, USER_SEEN, own_template, preserving, renderer, tail
from sgcd.errors import TemplateError
from sgcd.records import Ids, Kinds, Message, Said

PADS = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "<|pad|>", "[PAD]")  # where a tokenizer names none


@dataclass(frozen=True, slots=True)
class Opened:
    """The ids of a prompt (they end where the policy begins), and where in them a reference would go."""

    ids: Ids
    insert_at: int
    messages: tuple[Message, ...]
    """The messages as they were rendered: special tokens inside their words are escaped."""


class Chat:
    """What is sampled stays as it was; what follows it is what the template would write there."""

    def __init__(self, tokenizer: Any, name: str = "the tokenizer") -> None:
        self.tokenizer = tokenizer
        self.name = name
        stock = own_template(tokenizer, name)
        self.template = tokenizer.chat_template = preserving(tokenizer, stock, name)
        self._text = renderer(tokenizer, self.template, name)
        self.size = len(tokenizer)
        marks = marks_of(tokenizer, self.template)
        self.end = self._find_end(marks)
        self.dialect = self._find_dialect()
        self.pad = self._find_pad()
        self._escape = Escape(marks | set(self.dialect.marks))
        known = tokenizer.get_vocab()
        self.ends = (self.end, *(int(known[mark]) for mark in self.dialect.ends if mark in known))
        """The ids with which the policy may end its turn, the template's own first."""
        self._spelling = Spelling(tokenizer, self.end)
        opening = tail(self._text, [USER, TURN], [USER_SEEN], True, name).partition(SEEN)[2]
        self._opening = self._encode(opening)
        self._opening_text = opening
        self._thinks = opening.rfind(self.dialect.thinking[0]) > opening.rfind(self.dialect.thinking[1])

    @classmethod
    def load(cls, folder: Path) -> "Chat":
        """Read the tokenizer and the template of a policy's folder; nothing is fetched."""
        from transformers import AutoTokenizer

        try:
            made: Any = AutoTokenizer  # its methods have no types
            tokenizer = made.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as problem:
            first = str(problem).splitlines()[0]
            raise TemplateError(
                f"{folder}: no tokenizer can be read there ({first}); expected tokenizer.json beside the weights"
            ) from problem
        return cls(tokenizer, str(folder))

    def save(self, folder: Path) -> None:
        """Write tokenizer and template, so that apply_chat_template elsewhere gives the text of a rollout."""
        self.tokenizer.save_pretrained(folder)

    # -- the conversation ---------------------------------------------------------------------------------------------

    def open(self, messages: Sequence[Message], tools: Tools, harness: int) -> Opened:
        """The prompt: all that comes before the policy's first token."""
        clean = tuple(self._given(message) for message in messages)
        text = self._text(clean, tools, True)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(encoding["input_ids"], np.int32)
        starts = np.asarray([begin for begin, _ in encoding["offset_mapping"]], np.int64)
        return Opened(ids, self._place(clean, tools, harness, text, ids, starts), clean)

    def extend(self, messages: Sequence[Message], opens: bool = True) -> tuple[Ids, tuple[Message, ...]]:
        """What follows a turn that the policy finished itself: the messages, and the opening of its next turn."""
        clean = tuple(self._clean(message) for message in messages)
        glue = self._encode(self._tail(clean, opens))
        if not len(glue) or glue[0] != self.end:
            roles = [message["role"] for message in messages]
            raise TemplateError(f"{self.name}: a turn that {roles} follow does not end with the end-of-turn token")
        return glue[1:], clean

    def read(self, ids: Ids, tools: Tools = ()) -> tuple[Said, Kinds]:
        """What one sampled turn says, and what each of its tokens is; nothing is encoded again.

        `tools` type the arguments of dialects that write every value as a text.
        """
        stop = len(ids) - 1 if self.ended(ids) else len(ids)
        text, spans = self.spell(ids[:stop])
        reading = read(text, self.dialect, self._thinks, tools)
        kinds = of_tokens(reading.kinds, spans)
        if stop < len(ids):  # the end belongs to the stretch that it closes
            kinds = np.append(kinds, kinds[-1] if stop else of_tokens(kinds, np.zeros((1, 2), np.int64))[0])
        return reading.said, kinds.astype(np.uint8)

    def ended(self, ids: Ids) -> bool:
        """The policy ended this turn itself."""
        return len(ids) > 0 and int(ids[-1]) in self.ends

    def said_message(self, ids: Ids, stopped: bool) -> Message:
        """A sampled turn as a message: its raw text, so that rendering it again changes nothing."""
        if not stopped:
            return {"role": "assistant", "content": self.said_text(ids), "unfinished": True}
        other = {} if ids[-1] == self.end else {"end": self.plain(ids[-1:])}
        return {"role": "assistant", "content": self.said_text(ids[:-1]), **other}

    def said_text(self, ids: Ids) -> str:
        """The text of what was sampled. A word-by-word template puts the first space itself."""
        return self.plain(ids) if self.dialect is LAB else self._spelling.behind(ids.tolist())

    def exact(self, ids: Ids) -> bool:
        """Whether the tokenizer makes these very ids of the text of a turn, where the turn stands."""
        end = self.plain(ids[-1:]) if self.ended(ids) else ""
        text = self.said_text(ids[:-1] if end else ids)
        again = self._encode(self._opening_text + text + end)
        return np.array_equal(again, np.concatenate([self._opening, ids]))

    def plain(self, ids: Ids) -> str:
        return plain(self.tokenizer, ids)

    def spell(self, ids: Ids) -> tuple[str, Spans]:
        """The text of `plain`, and for each id the stretch [start, stop) of it that the id has a part in."""
        return self._spelling.spell(ids)

    def render(self, messages: Sequence[Message], tools: Tools) -> Ids:
        """A whole conversation through the template, as anyone who loads the policy would do it."""
        return self._encode(self._text(messages, tools, False))

    def words(self, text: str) -> Ids:
        """Ids of a piece of harness text in isolation: special tokens inside it are escaped."""
        return self._encode(self._escape(text))

    def words_of_policy(self, text: str) -> Ids:
        """Ids of a text as a policy would have written it, special tokens included: for scripts that stand in."""
        return self._encode(text)

    # -- taking the template apart ------------------------------------------------------------------------------------

    def _encode(self, text: str) -> Ids:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _clean(self, message: Message) -> Message:
        return {**message, "content": self._escape(message["content"])}

    def _given(self, message: Message) -> Message:
        """A message of the opening; a turn in it that the policy did not write is the template's to render."""
        given = {"given": True} if message["role"] == "assistant" else {}
        return {**self._clean(message), **given}

    def _tail(self, messages: Sequence[Message], opens: bool) -> str:
        """All that the template writes after an assistant turn when `messages` follow it, the end of turn included."""
        return tail(self._text, [USER, TURN], messages, opens, self.name)

    def _place(self, messages: Sequence[Message], tools: Tools, harness: int, text: str, ids: Ids, starts: Any) -> int:
        """Where a reference goes: before the end of the harness's message, or behind its words where another follows
        them in the same turn."""
        marked = [dict(message) for message in messages]
        marked[harness]["content"] = marked[harness]["content"] + PROBE
        if harness + 1 < len(marked):
            marked[harness + 1]["content"] = SEEN + marked[harness + 1]["content"]
        before, mark, after = self._text(marked, tools, True).partition(PROBE)
        if not mark:
            raise TemplateError(
                f"{self.name}: the template does not show message {harness}, so no reference could go there"
            )
        closing = self.plain(np.array([self.end], np.int32))
        shared = next((i for i, (a, b) in enumerate(zip(text, before, strict=False)) if a != b), len(before))
        if SEEN in after.partition(closing)[0]:
            behind = np.flatnonzero(starts >= min(shared, len(before)))
        else:
            passed = int((self._encode(before) == self.end).sum())
            behind = np.flatnonzero(ids == self.end)[passed:]
        if not len(behind):
            raise TemplateError(
                f"{self.name}: message {harness} is not closed by an end-of-turn token; a reference would have no place"
            )
        return int(behind[0])

    def _find_end(self, marks: set[str]) -> int:
        closing = self._tail((), opens=False)
        ids = self._encode(closing)
        if not len(ids) or self.plain(ids[:1]) not in marks:
            raise TemplateError(
                f"{self.name}: the template closes an assistant turn with {closing!r}; expected a special token"
            )
        follow = self._encode(self._tail((USER,), opens=True))
        if not len(follow) or follow[0] != ids[0]:
            raise TemplateError(
                f"{self.name}: an assistant turn ends differently when messages follow it; its suffix cannot be derived"
            )
        return int(ids[0])

    def _find_pad(self) -> int:
        if self.tokenizer.pad_token_id is not None:
            return int(self.tokenizer.pad_token_id)
        known = self.tokenizer.get_vocab()
        for pad in PADS:
            if pad in known and known[pad] != self.end:
                return int(known[pad])
        raise TemplateError(
            f"{self.name}: the tokenizer names no pad token; set pad_token in tokenizer_config.json (its end-of-turn "
            f"token {self.plain(np.array([self.end], np.int32))} will do, padding is never read)"
        )

    def _find_dialect(self) -> Dialect:
        known = self.tokenizer.get_vocab()
        if all(mark in known for mark in LAB.marks):
            return LAB
        tool, argument = "probe_tool", "probe_key"
        written = self._written(tool, {argument: "v"}) or self._written(tool, f'{{"{argument}": "v"}}')
        dialect = recognised(written, tool, argument) if written else HERMES
        if dialect is None:
            raise TemplateError(
                f"{self.name}: the template writes a call as {written.partition('u')[2][-120:]!r}; known are "
                '<tool_call>{"name": ...}</tool_call>, <tool_call><function=...>, and {"name": ..., "parameters": ...}'
            )
        spelt = "".join(dialect.marks)
        if self.plain(self._encode(spelt)).replace(" ", "") != spelt:
            raise TemplateError(
                f"{self.name}: its vocabulary has no marks for calls that are known here; expected "
                f"{' '.join(LAB.marks)}, or a vocabulary that can spell {' '.join(dialect.marks)}"
            )
        return dialect

    def _written(self, tool: str, arguments: Any) -> str:
        """A call as the template writes it; nothing where it writes none, or wants other arguments."""
        call = {"id": "probecall", "type": "function", "function": {"name": tool, "arguments": arguments}}
        try:
            text = self._text([USER, {"role": "assistant", "content": "", "tool_calls": [call]}], (), False)
        except TemplateError:
            return ""
        return text if tool in text else ""
