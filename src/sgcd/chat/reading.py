"""What a turn says, read from its text: thinking, calls, answer, and what each character and each token belongs to."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sgcd.chat.calls import Tools
from sgcd.chat.dialects import PYTHON, Dialect
from sgcd.records import Call, Kind, Kinds, Said

Spans = NDArray[np.int64]


@dataclass(slots=True)
class Reading:
    """A turn while it is read from left to right."""

    text: str
    dialect: Dialect
    tools: Tools
    kinds: Kinds = field(init=False)
    """What each character is."""
    thoughts: list[str] = field(default_factory=list[str])
    answers: list[str] = field(default_factory=list[str])
    calls: list[Call] = field(default_factory=list[Call])
    problem: str = ""

    def __post_init__(self) -> None:
        self.kinds = np.full(len(self.text), Kind.ANSWER, np.uint8)

    @property
    def said(self) -> Said:
        answer = self.dialect.between.join(piece for piece in self.answers if piece.strip()).strip()
        return Said("\n".join(self.thoughts), answer, () if self.problem else tuple(self.calls), self.problem)

    def think(self, start: int, inside: int) -> int:
        """Thinking begins at `start`, its words at `inside`; returns where it ends."""
        inner, stop = self._inner(inside, self.dialect.thinking)
        self.thoughts.append(inner.strip())
        self.kinds[start:stop] = Kind.THINKING
        return stop

    def call(self, start: int, marks: tuple[str, str]) -> int:
        """A marked call begins at `start`; returns where it ends."""
        inner, stop = self._inner(start + len(marks[0]), marks)
        self.kinds[start:stop] = Kind.CALL
        if not self.problem:
            self._parse(inner)
        return stop

    def answer(self, start: int, stop: int) -> None:
        """Neither thinking nor a marked call; where calls have no marks, the answer may be one or end in one."""
        piece = self.text[start:stop]
        if self.dialect.call is None:
            begun = start + _bare(piece)
            if begun < stop:
                self.kinds[begun:stop] = Kind.CALL
                self._parse(self.text[begun:stop])
                piece = self.text[start:begun]
        self.answers.append(piece if not self.dialect.between else piece.strip())

    def _inner(self, inside: int, marks: tuple[str, str]) -> tuple[str, int]:
        close = self.text.find(marks[1], inside)
        if close < 0:
            self.problem = self.problem or f"{marks[0]} is never closed"
            return "", len(self.text)
        return self.text[inside:close], close + len(marks[1])

    def _parse(self, text: str) -> None:
        found = self.dialect.parse(text, self.tools)
        if isinstance(found, str):
            self.problem = self.problem or found
        else:
            self.calls += found


def read(text: str, dialect: Dialect, thinking: bool, tools: Tools) -> Reading:
    """Read one turn. `thinking`: the template has opened the thinking already, the policy only closes it."""
    reading = Reading(text, dialect, tools)
    at = reading.think(0, 0) if thinking else 0
    while at < len(text):
        think = _find(text, dialect.thinking[0], at)
        call = _find(text, dialect.call[0], at) if dialect.call else len(text)
        begun = min(think, call)
        if begun > at:
            reading.answer(at, begun)
        at = begun
        if dialect.call and call == begun < len(text):
            at = reading.call(begun, dialect.call)
        elif begun < len(text):
            at = reading.think(begun, begun + len(dialect.thinking[0]))
    return reading


def of_tokens(kinds: Kinds, spans: Spans) -> Kinds:
    """What each token is, from what its characters are: one that has a part in a call is the call's."""
    found = np.full(len(spans), Kind.ANSWER, np.uint8)
    for kind in (Kind.THINKING, Kind.CALL):
        before = np.concatenate([[0], np.cumsum(kinds == kind)])
        found[before[spans[:, 1]] > before[spans[:, 0]]] = kind
    for place in np.flatnonzero(spans[:, 0] == spans[:, 1]):  # a token without a character goes with the one before it
        found[place] = found[place - 1] if place else Kind.ANSWER
    return found


def _find(text: str, mark: str, at: int) -> int:
    found = text.find(mark, at)
    return len(text) if found < 0 else found


def _bare(piece: str) -> int:
    """Where in an answer a call without marks begins: at its tag, or at a JSON object that opens the answer."""
    tag = piece.find(PYTHON)
    if tag >= 0:
        return tag
    opening = piece.lstrip()
    return len(piece) - len(opening) if opening.startswith("{") and '"name"' in opening else len(piece)
