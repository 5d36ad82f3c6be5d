"""The order in which a run takes its tasks, and its position in that order."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

from sgcd.records import Task
from sgcd.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class TaskCursor:
    """A run's position in the endless sequence of its tasks, and its counts of groups. It is checkpointed.

    >>> TaskCursor.from_json(TaskCursor(position=5, skipped=(3,), num_groups=9, num_mixed=4).to_json()).mixed_share
    0.5
    """

    position: int = 0
    """The first place that no step has passed."""
    skipped: tuple[int, ...] = ()
    """Places before `position` that are still to be played: their task had already been tried in the same step."""
    num_groups: int = 0
    num_mixed: int = 0

    @property
    def mixed_share(self) -> float:
        """The share of mixed groups, smoothed: one at first, never zero."""
        return (self.num_mixed + 1) / (self.num_groups + 1)

    def count_groups(self, num_groups: int, num_mixed: int) -> "TaskCursor":
        """A cursor with these groups added to the counts."""
        return replace(self, num_groups=self.num_groups + num_groups, num_mixed=self.num_mixed + num_mixed)

    def advance(self, last: int, tried: Collection[int]) -> "TaskCursor":
        """A cursor after the place `last`; earlier places that are not in `tried` are kept as skipped."""
        position = max(self.position, last + 1)
        passed_over = (*self.skipped, *range(self.position, position))
        return replace(
            self, position=position, skipped=tuple(place for place in passed_over if place > last or place not in tried)
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, with the keys of checkpoints of sgcd 0.1."""
        return {
            "position": self.position,
            "waiting": list(self.skipped),
            "groups": self.num_groups,
            "mixed": self.num_mixed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TaskCursor":
        """From the result of `to_json`."""
        return cls(data["position"], tuple(data["waiting"]), data["groups"], data["mixed"])


class TaskOrder:
    """The endless sequence of tasks: epoch after epoch, each shuffled by the seed and its number."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        self._tasks = tasks
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    def __getitem__(self, place: int) -> Task:
        epoch, index = divmod(place, len(self._tasks))
        if epoch not in self._epochs:
            shuffled = list(range(len(self._tasks)))
            random.Random(derive_seed(self._seed, "epoch", epoch)).shuffle(shuffled)
            self._epochs[epoch] = shuffled
        return self._tasks[self._epochs[epoch][index]]

    def next(self, cursor: TaskCursor, tried: Collection[int], max_places: int) -> list[int]:
        """The next places, at most `max_places`, without the tasks of the places in `tried`."""
        places: list[int] = []
        taken_ids = {self[place].id for place in tried}
        for place in chain(cursor.skipped, count(cursor.position)):
            if len(places) >= max_places or len(taken_ids) == len(self._tasks):
                break
            if self[place].id not in taken_ids:
                taken_ids.add(self[place].id)
                places.append(place)
        return places
