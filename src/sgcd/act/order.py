"""In which order a run takes its tasks, and where it stands."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

from sgcd.act.rollout import seed_of
from sgcd.records import Task


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands in the endless sequence of its tasks, and how many of its groups so far were mixed. All of it
    is checkpointed.

    >>> Cursor.restore(Cursor(position=5, waiting=(3,), groups=9, mixed=4).state()).share
    0.5
    """

    position: int = 0
    """Everything in the sequence from here on is still to come."""
    waiting: tuple[int, ...] = ()
    """Places before `position` that were passed over: their task had already been tried in the same step."""
    groups: int = 0
    mixed: int = 0

    @property
    def share(self) -> float:
        """How much of what is played turns out mixed: one at first, and never zero."""
        return (self.mixed + 1) / (self.groups + 1)

    def seen(self, groups: int, mixed: int) -> "Cursor":
        """After so many more groups."""
        return replace(self, groups=self.groups + groups, mixed=self.mixed + mixed)

    def past(self, last: int, tried: Collection[int]) -> "Cursor":
        """After the place `last`; of what comes before it, only what was tried is done with."""
        position = max(self.position, last + 1)
        before = (*self.waiting, *range(self.position, position))
        return replace(self, position=position, waiting=tuple(p for p in before if p > last or p not in tried))

    def state(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "position": self.position,
            "waiting": list(self.waiting),
            "groups": self.groups,
            "mixed": self.mixed,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Cursor":
        """From what `state` gave."""
        return cls(state["position"], tuple(state["waiting"]), state["groups"], state["mixed"])


class Order:
    """The endless sequence of tasks: one epoch after the other, each in a shuffled order of its own."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        self._tasks = tasks
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    def __getitem__(self, place: int) -> Task:
        epoch, index = divmod(place, len(self._tasks))
        if epoch not in self._epochs:
            shuffled = list(range(len(self._tasks)))
            random.Random(seed_of(self._seed, "epoch", epoch)).shuffle(shuffled)
            self._epochs[epoch] = shuffled
        return self._tasks[self._epochs[epoch][index]]

    def next(self, cursor: Cursor, tried: Collection[int], most: int) -> list[int]:
        """The next places, at most `most`; no task that stands at one of the places `tried` comes again."""
        places: list[int] = []
        known = {self[place].id for place in tried}
        for place in chain(cursor.waiting, count(cursor.position)):
            if len(places) >= most or len(known) == len(self._tasks):
                break
            if self[place].id not in known:
                known.add(self[place].id)
                places.append(place)
        return places
