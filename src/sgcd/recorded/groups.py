"""Groups recorded rollouts into siblings. A file of lines is read twice: once for tasks and rewards, then by group."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from sgcd.errors import DataError
from sgcd.recorded.files import RowFile, RowPlace
from sgcd.recorded.formats import RecordedRollout, read_row

MAX_SIBLINGS = 16
"""Siblings that are compared; of a larger group, those of both outcomes that come first."""
_MAX_UNUSABLE_CAUSE = 160
"""Characters of a cause that is shown."""


@dataclass(slots=True)
class Siblings:
    """The rows of one task: where each is, and its reward."""

    task: str
    file_indices: "array[int]" = field(default_factory=lambda: array("l"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    rewards: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, file_index: int, place: RowPlace, reward: float) -> None:
        self.file_indices.append(file_index)
        self.numbers.append(place.number)
        self.offsets.append(place.offset)
        self.rewards.append(reward)

    def is_mixed(self, min_reward_gap: float) -> bool:
        return max(self.rewards) - min(self.rewards) > min_reward_gap

    def choose(self, success: float) -> list[int]:
        """The indices of the siblings that are compared, in their order: as many of each outcome as there is room."""
        indices = range(len(self.rewards))
        if len(indices) <= MAX_SIBLINGS:
            return [*indices]
        is_better = [reward >= success for reward in self.rewards]
        if len(set(is_better)) == 1:
            best = max(self.rewards)
            is_better = [reward == best for reward in self.rewards]
        sides = [[i for i in indices if is_better[i] is side] for side in (True, False)]
        half = MAX_SIBLINGS // 2
        counts = [max(half, MAX_SIBLINGS - len(other)) for other in reversed(sides)]
        return sorted(i for side, count in zip(sides, counts, strict=True) for i in side[:count])


@dataclass(slots=True)
class RolloutIndex:
    """All usable rows of some files, by task, and what could not be used."""

    files: list[RowFile]
    siblings: dict[str, Siblings] = field(default_factory=dict[str, Siblings])
    num_rows: int = 0
    unusable: Counter[str] = field(default_factory=Counter[str])
    """Rows that are no rollouts, by cause, the place of the first one in it."""

    @property
    def num_usable(self) -> int:
        return sum(len(one.rewards) for one in self.siblings.values())

    def mixed(self, min_reward_gap: float) -> list[Siblings]:
        """The tasks whose siblings' rewards differ, in the order of the files."""
        return [one for one in self.siblings.values() if one.is_mixed(min_reward_gap)]

    def read(self, siblings: Siblings, index: int) -> tuple[RowPlace, RecordedRollout]:
        file = self.files[siblings.file_indices[index]]
        place = RowPlace(file.path, siblings.numbers[index], siblings.offsets[index])
        return place, read_row(file.read(place), file.shared)

    def fingerprint(self) -> str:
        """Changes when a file gets other rows, so that a stopped command does not go on with other rollouts."""
        digest = sha256()
        for file in self.files:
            digest.update(f"{file.path.name} {file.path.stat().st_size} ".encode())
        for one in self.siblings.values():
            digest.update(f"{one.task} {list(one.offsets)} {list(one.rewards)}".encode())
        return digest.hexdigest()[:16]


def index_rollouts(paths: Sequence[Path]) -> RolloutIndex:
    """Read all rows once. A row that is no rollout is counted; where none is one, `DataError` names the first."""
    index = RolloutIndex([RowFile(path) for path in paths])
    causes: dict[str, str] = {}
    for file_index, file in enumerate(index.files):
        for place, row in file.rows():
            index.num_rows += 1
            try:
                rollout = _read_checked(row, file)
            except DataError as problem:
                cause = str(problem)[:_MAX_UNUSABLE_CAUSE]
                kind = cause.partition(":")[0].partition("(")[0].strip()
                first = causes.setdefault(kind, f"{cause} (the first: {place})")
                index.unusable[first] += 1
                if not index.siblings and index.num_rows >= _MAX_LEADING_FAULTS:
                    break
                continue
            siblings = index.siblings.setdefault(rollout.key, Siblings(rollout.task))
            siblings.add(file_index, place, rollout.reward)
    if not index.siblings:
        raise DataError(_describe_none(index, paths))
    names = Counter(one.task for one in index.siblings.values())
    for key, one in index.siblings.items():
        one.task = key if names[one.task] > 1 else one.task
    return index


_MAX_LEADING_FAULTS = 1000
"""A file whose first rows are all unusable is not read to its end."""


def _read_checked(row: object, file: RowFile) -> RecordedRollout:
    if isinstance(row, DataError):
        raise row
    return read_row(row, file.shared)


def _describe_none(index: RolloutIndex, paths: Sequence[Path]) -> str:
    if not index.unusable:
        return f"{paths[0]}: holds no rows; expected rollouts as JSON lines, or one JSON list of them"
    cause, _, place = next(iter(index.unusable)).rpartition(" (the first: ")
    return f"{place.removesuffix(')')}: {cause}"


def iterate_batches(groups: Sequence[Siblings], size: int) -> Iterator[tuple[int, Sequence[Siblings]]]:
    """Batches with their numbers, from 1."""
    for start in range(0, len(groups), size):
        yield start // size + 1, groups[start : start + size]
