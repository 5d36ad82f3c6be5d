"""Where siblings part: the points of deviation behind a reference, by turn, and the weights that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgcd.contrast.trace import Trace
from sgcd.contrast.writers import Writer
from sgcd.contrast.writers.built_in import Point, find_points
from sgcd.credit_records import Credit
from sgcd.records import Rollout
from sgcd.storage.atomic import Row

PARTING_WEIGHT = 2.0
"""Weight of a turn in which siblings part, where no policy scores."""


@dataclass(slots=True)
class PointFinder:
    """A writer that also finds the points of deviation in the first traces that it gets after `start`."""

    writer: Writer
    points: list[Point] | None = None
    reads_steps: bool = True

    @property
    def name(self) -> str:
        return self.writer.name

    def start(self) -> None:
        """Forget the points of the group before."""
        self.points = None

    async def write(self, traces: Sequence[Trace], refused: Sequence[str] = ()) -> str:
        """The writer's text."""
        self.points = find_points(traces) if self.points is None else self.points
        return await self.writer.write(traces, refused)


def points_to_json(points: Sequence[Point]) -> list[Row]:
    """Turns count from 1, as people count."""
    return [
        {
            "place": point.place,
            "right": point.right.phrase,
            "wrong": point.wrong.phrase if point.wrong else None,
            "turns": {str(sibling): turn + 1 for sibling, turn in point.turns.items()},
        }
        for point in points
    ]


def parting_turns(row: Row, sibling: int) -> list[int]:
    """The turns, from 1, in which a sibling parts from one of the other outcome, by the row of its reference."""
    points: Sequence[dict[str, Any]] = row.get("points", ())
    return sorted({point["turns"][str(sibling)] for point in points if str(sibling) in point["turns"]})


def credit_of_points(rollout: Rollout, row: Row, advantage: float) -> Credit:
    """More weight on the turns in which a rollout parts from a sibling of the other outcome."""
    weight = np.ones(len(rollout.response), np.float32)
    for turn in (rollout.turns[number - 1] for number in parting_turns(row, rollout.sibling)):
        weight[turn.start : turn.stop] = PARTING_WEIGHT
    return Credit(advantage, np.where(rollout.response_mask, weight, np.float32(1)), cap=PARTING_WEIGHT)
