"""The only file that sees a tokenizer or a chat template: open a conversation, extend it, read a call, plain text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.errors import TemplateError
from sgcd.records import Call, Ids, Kind, Kinds, Message, Said

Spans = NDArray[np.int64]
BROKEN = "\ufffd"  # what is decoded where bytes make no whole character
PROBE = "probeprobe"  # stands for an assistant turn while the template is taken apart


@dataclass(frozen=True, slots=True)
class Opened:
    """The ids of a prompt (they end where the policy begins), and where in them a reference would go."""

    ids: Ids
    insert_at: int
    messages: tuple[Message, ...]
    """The messages as they were rendered: special tokens inside their words are escaped."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of models marks thinking and calls. Each mark is a single special token."""

    thinking: tuple[str, str]
    call: tuple[str, str]
    parse: Callable[[str], Call | str]
    """From the text between the marks of a call to the call, or to a sentence that says what is wrong with it."""


def parse_words(text: str) -> Call | str:
    """The lab's calls are plain words: a tool, then the name and the value of each argument."""
    words = text.split()
    if not words:
        return "the call is empty"
    if len(words) % 2 == 0:
        return f"each argument of {words[0]} needs a name and a value"
    names, values = words[1::2], words[2::2]
    if len(set(names)) < len(names):
        return f"an argument of {words[0]} is given twice"
    return Call(words[0], dict(zip(names, values, strict=True)))


DIALECTS = (Dialect(("<think>", "</think>"), ("<call>", "</call>"), parse_words),)


class Chat:
    """A tokenizer and its template, as one conversation needs them: ids are only ever appended."""

    def __init__(self, tokenizer: Any, name: str = "the tokenizer") -> None:
        self.tokenizer = tokenizer
        self.name = name
        if not tokenizer.chat_template:
            raise TemplateError(f"{name}: it has no chat template; add chat_template.jinja to the policy's folder")
        self.size = len(tokenizer)
        self._pieces: dict[int, str] = {}
        self._special = sorted({str(token) for token in tokenizer.all_special_tokens}, key=len, reverse=True)
        self.end = self._find_end()
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.dialect = self._find_dialect()

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
        """Write tokenizer and template, so that apply_chat_template elsewhere gives the very ids of a rollout."""
        self.tokenizer.save_pretrained(folder)

    # -- the conversation ---------------------------------------------------------------------------------------------

    def open(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], harness: int) -> Opened:
        """The prompt: all that comes before the policy's first token."""
        clean = tuple(self._escape(message) for message in messages)
        text = self._text(clean, tools, opens=True)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(encoding["input_ids"], np.int32)
        marked = [*clean]
        marked[harness] = {**marked[harness], "content": marked[harness]["content"] + PROBE}
        start = self._text(marked, tools, opens=True).find(PROBE)
        if start < 0:
            raise TemplateError(
                f"{self.name}: the template does not show message {harness}, so no reference could go there"
            )
        after = [i for i, (begin, _) in enumerate(encoding["offset_mapping"]) if begin >= start and ids[i] == self.end]
        if not after:
            raise TemplateError(
                f"{self.name}: message {harness} is not closed by an end-of-turn token; a reference would have no place"
            )
        return Opened(ids, after[0], clean)

    def extend(self, messages: Sequence[Message], opens: bool = True) -> tuple[Ids, tuple[Message, ...]]:
        """What follows a turn that the policy finished itself: the messages, and the opening of its next turn."""
        clean = tuple(self._escape(message) for message in messages)
        glue = self._tail(clean, opens)
        return self._encode(glue)[1:], clean

    def read(self, ids: Ids) -> tuple[Said, Kinds]:
        """What one sampled turn says, and what each of its tokens is; nothing is encoded again."""
        kinds = np.full(len(ids), Kind.ANSWER, np.uint8)
        text: list[int] = []
        parts: dict[Kind, list[str]] = {Kind.THINKING: [], Kind.CALL: []}
        problem, position = "", 0
        stop = len(ids) - 1 if len(ids) and ids[-1] == self.end else len(ids)
        while position < stop:
            kind = self._marks.get(int(ids[position]))
            if kind is None:
                text.append(int(ids[position]))
                position += 1
                continue
            closing = self._closing[kind]
            close = next((i for i in range(position + 1, stop) if ids[i] == closing), stop)
            if close == stop:
                problem = problem or f"{self.plain(ids[position : position + 1])} is never closed"
            kinds[position : close + 1] = kind
            parts[kind].append(self.plain(ids[position + 1 : close]) if close < stop else "")
            position = close + 1
        if stop < len(ids) and stop > 0:
            kinds[stop] = kinds[stop - 1]  # the end belongs to the stretch that it closes
        calls: list[Call] = []
        for part in parts[Kind.CALL] if not problem else []:
            call = self.dialect.parse(part)
            if isinstance(call, str):
                problem = problem or call
            else:
                calls.append(call)
        said = Said(
            "\n".join(parts[Kind.THINKING]),
            self.plain(np.asarray(text, np.int32)),
            () if problem else tuple(calls),
            problem,
        )
        return said, kinds

    def said_message(self, ids: Ids, stopped: bool) -> Message:
        """A sampled turn as a message: its raw text, so that rendering it again changes nothing."""
        if stopped:
            return {"role": "assistant", "content": self.plain(ids[:-1])}
        return {"role": "assistant", "content": self.plain(ids), "unfinished": True}

    def plain(self, ids: Ids) -> str:
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def spell(self, ids: Ids) -> tuple[str, Spans]:
        """The text of `plain`, and for each id the stretch [start, stop) of it that the id has a part in.

        A character that several ids make together belongs to each of them.
        """
        text, tokens = self.plain(ids), ids.tolist()
        spelt, stretches = list[str](), list[tuple[int, int]]()
        at = 0
        for whole, run in groupby(tokens, lambda token: BROKEN not in self._piece(token)):
            for part, inside in [(self._piece(token), None) for token in run] if whole else [self._together([*run])]:
                stretches += [(at + start, at + stop) for start, stop in inside or [(0, len(part))]]
                spelt.append(part)
                at += len(part)
        if not "".join(spelt).endswith(text) or at > len(text) + 1:  # an id's text depends on more than its neighbour
            part, stretches = self._together(tokens)
            at = len(part)
        lost = at - len(text)  # the very first id may lose a space
        return text, np.maximum(np.array(stretches, np.int64).reshape(-1, 2) - lost, 0)

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Ids:
        """A whole conversation through the template, as anyone who loads the policy would do it."""
        return self._encode(self._text(messages, tools, opens=False))

    def words(self, text: str) -> Ids:
        """Ids of a piece of harness text in isolation: special tokens inside it are escaped."""
        return self._encode(self._escape_text(text))

    def words_of_policy(self, text: str) -> Ids:
        """Ids of a text as a policy would have written it, special tokens included: for scripts that stand in."""
        return self._encode(text)

    def _piece(self, token: int) -> str:
        """What an id spells when another stands before it; nothing whole when it is a byte."""
        if token not in self._pieces:
            byte = str(self.tokenizer.convert_ids_to_tokens(token)).startswith("<0x")
            self._pieces[token] = BROKEN if byte else self._behind([token])
        return self._pieces[token]

    def _behind(self, tokens: Sequence[int]) -> str:
        first = self.plain(np.array([self.end], np.int32))
        return self.plain(np.array([self.end, *tokens], np.int32))[len(first) :]

    def _together(self, tokens: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Ids that spell characters together, as the bytes of an emoji do: each begins where those before it end."""
        text = self._behind(tokens)
        sure = [_agreement(text, self._behind(tokens[:count])) for count in range(len(tokens))] + [len(text)]
        sure = [*accumulate(sure, max)]
        return text, [(at, next((end for end in sure[i + 1 :] if end > at), at)) for i, at in enumerate(sure[:-1])]

    # -- taking the template apart ------------------------------------------------------------------------------------

    def _text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], opens: bool) -> str:
        from jinja2 import TemplateError as JinjaError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tools=[*tools] or None, tokenize=False, add_generation_prompt=opens
                )
            )
        except JinjaError as problem:
            roles = [message["role"] for message in messages]
            raise TemplateError(
                f"{self.name}: the chat template refuses messages with the roles {roles}: {problem}"
            ) from problem

    def _encode(self, text: str) -> Ids:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _tail(self, messages: Sequence[Message], opens: bool) -> str:
        """All that the template writes after an assistant turn when `messages` follow it, the end of turn included."""
        before: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": PROBE}]
        alone, whole = self._text(before, (), False), self._text([*before, *messages], (), opens)
        head, mark, tail = whole.partition(PROBE)
        if not mark or not alone.startswith(head + mark) or PROBE in tail:
            raise TemplateError(
                f"{self.name}: the template rewrites an assistant turn once messages follow it, so the suffix for the "
                "next turn cannot be derived; use a template that renders history as it was"
            )
        return tail

    def _find_end(self) -> int:
        tail = self._tail((), opens=False)
        ids = self._encode(tail)
        if not len(ids) or self.plain(ids[:1]) not in self._special:
            raise TemplateError(
                f"{self.name}: the template closes an assistant turn with {tail!r}; expected a special token"
            )
        follow = self._encode(self._tail(({"role": "user", "content": "u"},), opens=True))
        if not len(follow) or follow[0] != ids[0]:
            raise TemplateError(
                f"{self.name}: an assistant turn ends differently when messages follow it; its suffix cannot be derived"
            )
        return int(ids[0])

    def _find_dialect(self) -> Dialect:
        known = self.tokenizer.get_vocab()
        for dialect in DIALECTS:
            marks = (*dialect.thinking, *dialect.call)
            if all(mark in known for mark in marks):
                think, call = int(known[dialect.thinking[0]]), int(known[dialect.call[0]])
                self._marks = {think: Kind.THINKING, call: Kind.CALL}
                self._closing = {Kind.THINKING: int(known[dialect.thinking[1]]), Kind.CALL: int(known[dialect.call[1]])}
                return dialect
        expected = " or ".join(" ".join((*d.thinking, *d.call)) for d in DIALECTS)
        raise TemplateError(
            f"{self.name}: its vocabulary has no marks for calls that are known here; expected {expected}"
        )

    def _escape(self, message: Message) -> Message:
        return {**message, "content": self._escape_text(message["content"])}

    def _escape_text(self, text: str) -> str:
        """No word of a tool, a user or a reference may open or close a turn: a special token is broken in two."""
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text


def _agreement(first: str, second: str) -> int:
    """How many characters two texts begin with together."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
