"""Decode ids to text, with the span of characters that each id is part of."""

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.records import TokenIds

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
