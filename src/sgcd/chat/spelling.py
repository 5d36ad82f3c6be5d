"""From ids to the text that they spell, and to the stretch of it that each has a part in."""

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgcd.records import Ids

Spans = NDArray[np.int64]
BROKEN = "\ufffd"  # what is decoded where bytes make no whole character


class Spelling:
    """A tokenizer's way back to text. `before` is an id that may stand before any other."""

    def __init__(self, tokenizer: Any, before: int) -> None:
        self._tokenizer = tokenizer
        self._before = before
        self._skip = len(plain(tokenizer, np.array([before], np.int32)))
        self._pieces: dict[int, str] = {}

    def spell(self, ids: Ids) -> tuple[str, Spans]:
        """The text of `plain`, and for each id the stretch [start, stop) of it that the id has a part in.

        A character that several ids make together belongs to each of them.
        """
        text, tokens = plain(self._tokenizer, ids), ids.tolist()
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

    def behind(self, tokens: Sequence[int]) -> str:
        """What ids spell when another stands before them."""
        return plain(self._tokenizer, np.array([self._before, *tokens], np.int32))[self._skip :]

    def _piece(self, token: int) -> str:
        """What an id spells when another stands before it; nothing whole when it is a byte."""
        if token not in self._pieces:
            byte = str(self._tokenizer.convert_ids_to_tokens(token)).startswith("<0x")
            self._pieces[token] = BROKEN if byte else self.behind([token])
        return self._pieces[token]

    def _together(self, tokens: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Ids that spell characters together, as the bytes of an emoji do: each begins where those before it end."""
        text = self.behind(tokens)
        sure = [_agreement(text, self.behind(tokens[:count])) for count in range(len(tokens))] + [len(text)]
        sure = [*accumulate(sure, max)]
        return text, [(at, next((end for end in sure[i + 1 :] if end > at), at)) for i, at in enumerate(sure[:-1])]


def plain(tokenizer: Any, ids: Ids) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _agreement(first: str, second: str) -> int:
    """How many characters two texts begin with together."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
