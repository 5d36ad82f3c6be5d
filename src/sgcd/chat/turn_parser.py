"""A sampled turn as thinking, text and calls, with the kind of each token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.chat.call_formats import PYTHON_TAG, CallFormat, Tools
from sgcd.records import Call, ParsedTurn, TokenIds, TokenKind, TokenKinds

TokenSpans = NDArray[np.int64]
_REPLACEMENT_CHARACTER = "\ufffd"  # what is decoded where bytes make no whole character


class SpanDecoder:
    """Decodes ids with a tokenizer. `preceding_id` is an id that any other may follow."""

    def __init__(self, tokenizer: Any, preceding_id: int) -> None:
        self._tokenizer = tokenizer
        self._preceding_id = preceding_id
        self._skip = len(decode_ids(tokenizer, np.array([preceding_id], np.int32)))
        self._pieces: dict[int, str] = {}

    def decode_with_spans(self, ids: TokenIds) -> tuple[str, TokenSpans]:
        """The text of `ids`, and for each id the span [start, stop) of the characters it is part of.

        A character that several ids form together belongs to each of them.
        """
        text, tokens = decode_ids(self._tokenizer, ids), ids.tolist()
        pieces, spans = list[str](), list[tuple[int, int]]()
        offset = 0
        for is_whole, run in groupby(tokens, lambda token: _REPLACEMENT_CHARACTER not in self._piece(token)):
            for piece, piece_spans in (
                [(self._piece(token), None) for token in run] if is_whole else [self._decode_together([*run])]
            ):
                spans += [(offset + start, offset + stop) for start, stop in piece_spans or [(0, len(piece))]]
                pieces.append(piece)
                offset += len(piece)
        if (
            not "".join(pieces).endswith(text) or offset > len(text) + 1
        ):  # an id's text depends on more than its neighbour
            piece, spans = self._decode_together(tokens)
            offset = len(piece)
        num_lost = offset - len(text)  # the very first id may lose a space
        return text, np.maximum(np.array(spans, np.int64).reshape(-1, 2) - num_lost, 0)

    def decode_after(self, tokens: Sequence[int]) -> str:
        """The text of ids that follow another id."""
        return decode_ids(self._tokenizer, np.array([self._preceding_id, *tokens], np.int32))[self._skip :]

    def _piece(self, token: int) -> str:
        """The text of an id that follows another; the replacement character for a byte."""
        if token not in self._pieces:
            is_byte = str(self._tokenizer.convert_ids_to_tokens(token)).startswith("<0x")
            self._pieces[token] = _REPLACEMENT_CHARACTER if is_byte else self.decode_after([token])
        return self._pieces[token]

    def _decode_together(self, tokens: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Decode ids that form characters together, such as those of an emoji; each starts where earlier ids end."""
        text = self.decode_after(tokens)
        ends = [_common_prefix_length(text, self.decode_after(tokens[:count])) for count in range(len(tokens))] + [
            len(text)
        ]
        ends = [*accumulate(ends, max)]
        return text, [
            (start, next((end for end in ends[i + 1 :] if end > start), start)) for i, start in enumerate(ends[:-1])
        ]


def decode_ids(tokenizer: Any, ids: TokenIds) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _common_prefix_length(first: str, second: str) -> int:
    """The length of the common prefix of two texts."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


@dataclass(slots=True)
class TurnParser:
    """The state of a turn that is parsed from left to right."""

    text: str
    call_format: CallFormat
    tools: Tools
    character_kinds: TokenKinds = field(init=False)
    """The kind of each character."""
    thoughts: list[str] = field(default_factory=list[str])
    answer_parts: list[str] = field(default_factory=list[str])
    calls: list[Call] = field(default_factory=list[Call])
    error: str = ""

    def __post_init__(self) -> None:
        self.character_kinds = np.full(len(self.text), TokenKind.ANSWER, np.uint8)

    @property
    def parsed_turn(self) -> ParsedTurn:
        answer = self.call_format.answer_separator.join(piece for piece in self.answer_parts if piece.strip()).strip()
        return ParsedTurn("\n".join(self.thoughts), answer, () if self.error else tuple(self.calls), self.error)

    def add_thinking(self, start: int, content_start: int) -> int:
        """Add thinking that begins at `start`, its text at `content_start`; returns its end."""
        content, stop = self._content(content_start, self.call_format.thinking_marks)
        self.thoughts.append(content.strip())
        self.character_kinds[start:stop] = TokenKind.THINKING
        return stop

    def add_call(self, start: int, marks: tuple[str, str]) -> int:
        """Add a marked call that begins at `start`; returns its end."""
        content, stop = self._content(start + len(marks[0]), marks)
        self.character_kinds[start:stop] = TokenKind.CALL
        if not self.error:
            self._parse_call(content)
        return stop

    def add_answer(self, start: int, stop: int) -> None:
        """Add text outside thinking and marked calls; where calls have no marks, its end may be a call."""
        piece = self.text[start:stop]
        if self.call_format.call_marks is None:
            call_start = start + _unmarked_call_start(piece)
            if call_start < stop:
                self.character_kinds[call_start:stop] = TokenKind.CALL
                self._parse_call(self.text[call_start:stop])
                piece = self.text[start:call_start]
        self.answer_parts.append(piece if not self.call_format.answer_separator else piece.strip())

    def _content(self, content_start: int, marks: tuple[str, str]) -> tuple[str, int]:
        close = self.text.find(marks[1], content_start)
        if close < 0:
            self.error = self.error or f"{marks[0]} is never closed"
            return "", len(self.text)
        return self.text[content_start:close], close + len(marks[1])

    def _parse_call(self, text: str) -> None:
        result = self.call_format.parse(text, self.tools)
        if isinstance(result, str):
            self.error = self.error or result
        else:
            self.calls += result


def parse_turn_text(text: str, call_format: CallFormat, tools: Tools, *, opens_thinking: bool) -> TurnParser:
    """Parse one turn. With `opens_thinking` the template has opened the thinking, and the policy only closes it."""
    parser = TurnParser(text, call_format, tools)
    position = parser.add_thinking(0, 0) if opens_thinking else 0
    while position < len(text):
        thinking_start = _find_or_end(text, call_format.thinking_marks[0], position)
        call_start = _find_or_end(text, call_format.call_marks[0], position) if call_format.call_marks else len(text)
        mark_start = min(thinking_start, call_start)
        if mark_start > position:
            parser.add_answer(position, mark_start)
        position = mark_start
        if call_format.call_marks and call_start == mark_start < len(text):
            position = parser.add_call(mark_start, call_format.call_marks)
        elif mark_start < len(text):
            position = parser.add_thinking(mark_start, mark_start + len(call_format.thinking_marks[0]))
    return parser


def kinds_of_tokens(character_kinds: TokenKinds, spans: TokenSpans) -> TokenKinds:
    """The kind of each token, from its characters: a token with a part in a call is a call token."""
    token_kinds = np.full(len(spans), TokenKind.ANSWER, np.uint8)
    for kind in (TokenKind.THINKING, TokenKind.CALL):
        counts = np.concatenate([[0], np.cumsum(character_kinds == kind)])
        token_kinds[counts[spans[:, 1]] > counts[spans[:, 0]]] = kind
    for index in np.flatnonzero(spans[:, 0] == spans[:, 1]):  # without a character: the kind of the one before
        token_kinds[index] = token_kinds[index - 1] if index else TokenKind.ANSWER
    return token_kinds


def _find_or_end(text: str, mark: str, start: int) -> int:
    index = text.find(mark, start)
    return len(text) if index < 0 else index


def _unmarked_call_start(piece: str) -> int:
    """The start of a call without marks: its tag, or a JSON object at the start of the answer; else the end."""
    tag = piece.find(PYTHON_TAG)
    if tag >= 0:
        return tag
    stripped = piece.lstrip()
    return len(piece) - len(stripped) if stripped.startswith("{") and '"name"' in stripped else len(piece)
