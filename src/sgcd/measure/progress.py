"""The trials of an evaluation on disk as they end, so that one that was stopped goes on and plays no trial twice."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from sgcd.errors import FolderError
from sgcd.measure.evaluate import Trial
from sgcd.measure.trial_rows import CONVERSATIONS_FILE, TrialKey, TrialRow, select_evaluation, trial_key
from sgcd.records import Rollout
from sgcd.storage.atomic import remove
from sgcd.storage.run_folder import RunFolder

UNFINISHED_FILE = "unfinished.jsonl"
"""In a run's folder: the evaluation that is being played, or that was stopped."""


class EvaluationProgress:
    """The trials of one evaluation. They are in evaluation.jsonl when all have ended, so half of one is never read.

    Until then they are in another file. In the folder of an evaluation that file has the conversations and stays; in a
    run's folder it goes. A trial that broke is played again by a resumed evaluation.
    """

    def __init__(self, folder: RunFolder, begun: Mapping[str, Any] | None = None) -> None:
        """Begin an evaluation, of which `begun` says what resuming it takes; or go on with one, where it is None."""
        self.folder = folder
        self._is_resumed = begun is None
        self._has_own_folder = folder.kind == "evaluation"
        self._file_name = CONVERSATIONS_FILE if self._has_own_folder else UNFINISHED_FILE
        if begun is not None and not self._has_own_folder:
            folder.row_files.remove(UNFINISHED_FILE)
            folder.row_files.append(UNFINISHED_FILE, [{"begun": begun}])
        lines = folder.row_files.read(self._file_name)
        finished = select_evaluation(folder.read_evaluations()) if self._has_own_folder else []
        rows = [*finished, *(line["row"] for line in lines if "row" in line)]
        self._rows: dict[TrialKey, TrialRow] = {trial_key(row): row for row in rows}
        self._order: dict[TrialKey, None] = {}
        self.seconds: float = sum(line.get("seconds", 0.0) for line in lines)
        """Time that was spent on playing, before and since a stop."""
        self._last_time = perf_counter()

    @property
    def num_trials(self) -> int:
        """Trials on disk, broken ones included."""
        return len(self._rows)

    def select_missing(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials that are still to be played: those that are not on disk, and those that broke."""
        keys: list[TrialKey] = [(trial.mode, trial.task.id, trial.number) for trial in trials]
        self._order |= dict.fromkeys(keys)
        return [
            trial
            for trial, key in zip(trials, keys, strict=True)
            if key not in self._rows or (self._is_resumed and self._rows[key]["broken"])
        ]

    def add(self, played: Sequence[tuple[TrialRow, Rollout]]) -> None:
        """Write trials that have ended, all or none."""
        now = perf_counter()
        seconds, self._last_time = now - self._last_time, now
        self.seconds += seconds
        lines = [
            {
                **({"messages": list(rollout.messages)} if self._has_own_folder else {}),
                "row": row,
                "seconds": round(seconds / len(played), 6),
            }
            for row, rollout in played
        ]
        self.folder.row_files.append(self._file_name, lines)
        self._rows |= {trial_key(row): row for row, _ in played}

    def list_rows(self) -> list[TrialRow]:
        """The rows of all trials, in their order."""
        return [self._rows[key] for key in self._order]

    def finish(self) -> None:
        """Add the rows that evaluation.jsonl does not have."""
        rows = self.list_rows()
        if self._is_resumed and rows:
            step, split = rows[0]["step"], rows[0]["split"]
            written = select_evaluation(self.folder.read_evaluations(), split, step)
            known = {trial_key(row): row for row in written}
            rows = [row for row in rows if known.get(trial_key(row)) != row]
        self.folder.append_evaluation(rows)
        self.drop()

    def discard(self) -> None:
        """Leave no trace of an evaluation that measured nothing. One that was resumed can be resumed again."""
        if self._is_resumed:
            return
        if self._has_own_folder:
            remove(self.folder.path)
        else:
            self.drop()

    def drop(self) -> None:
        """Remove what resuming takes; conversations stay."""
        if not self._has_own_folder:
            self.folder.row_files.remove(UNFINISHED_FILE)


def read_begun(folder: RunFolder) -> Mapping[str, Any]:
    """What resuming the stopped evaluation of a run takes."""
    lines = folder.row_files.read(UNFINISHED_FILE)
    if not lines:
        raise FolderError(f"{folder.path}: no evaluation was stopped here; leave out --resume")
    return lines[0]["begun"]
