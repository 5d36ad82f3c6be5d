"""A run's folder: the names, readers and writers of its files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sgcd.credit_records import CreditRecord
from sgcd.errors import FolderError
from sgcd.records import Group
from sgcd.storage.atomic import SCHEMA, Row, append_rows, check_schema, read_rows, remove, to_json_line, write_atomic
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.record_files import (
    StoredGroup,
    credit_from_bytes,
    credit_to_bytes,
    groups_from_bytes,
    groups_to_bytes,
)

TRAINED_FILE = "trained.json"
"""In the folder of an exported policy: the step that it was saved after."""
STATE_FILE = "state.json"
"""In the folder of a checkpoint: the trainer's state, with the step that it was saved after."""
RunKind = Literal["training", "endpoint evaluation"]
_STEP_FOLDERS = ("rollouts", "references", "credit")
"""Folders whose files have the number of a step as their name."""


class RunFolder:
    """The folder holds everything that is known about a run; reports and terminals only read it."""

    def __init__(self, path: Path, facts: Row) -> None:
        self.path = path
        self.facts = facts

    @classmethod
    def create(cls, path: Path, recipe_text: str, facts: Mapping[str, Any]) -> "RunFolder":
        """Create a run folder. A folder without `recipe.yaml`, which is written last, can be created again."""
        if path.exists() and (
            not path.is_dir() or any(not _may_be_overwritten(entry.name) for entry in path.iterdir())
        ):
            raise FolderError(
                f"{path}: the folder is not empty; choose another one, or go on with this run by --resume"
            )
        path.mkdir(parents=True, exist_ok=True)
        facts = {"schema": SCHEMA, **facts}
        write_atomic(path / "facts.json", (json.dumps(facts, indent=2) + "\n").encode())
        folder = cls(path, facts)
        folder.replace_recipe(recipe_text)
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        if not (path / "recipe.yaml").is_file() or not (path / "facts.json").is_file():
            problem = "is not a run's folder" if path.is_dir() else "does not exist"
            raise FolderError(f"{path}: {problem}; expected one that `sgcd train RECIPE --run {path}` has made")
        facts = json.loads((path / "facts.json").read_text())
        check_schema(facts, path / "facts.json")
        return cls(path, facts)

    @property
    def kind(self) -> RunKind:
        """A training run records the machine that it runs on; an evaluation of an endpoint does not."""
        return "training" if "machine" in self.facts else "endpoint evaluation"

    @property
    def recipe_text(self) -> str:
        return (self.path / "recipe.yaml").read_text()

    def replace_recipe(self, text: str) -> None:
        """Replace the recipe of a resumed run whose changed keys may change."""
        write_atomic(self.path / "recipe.yaml", text.encode())

    # -- rows ---------------------------------------------------------------------------------------------------------

    def read_metrics(self) -> list[StepMetrics]:
        """One row for each step."""
        path = self.path / "metrics.jsonl"
        try:
            return [StepMetrics.from_json(row) for row in read_rows(path)]
        except ValidationError as problem:
            error = problem.errors()[0]
            key = ".".join(map(str, error["loc"]))
            raise FolderError(f"{path}: {key}: {error['msg']}; the row is not one that sgcd wrote") from problem

    def append_metrics(self, row: StepMetrics) -> None:
        append_rows(self.path / "metrics.jsonl", [row.to_json()])

    def read_evaluations(self) -> list[Row]:
        """One row for each trial."""
        return read_rows(self.path / "evaluation.jsonl")

    def append_evaluation(self, rows: Iterable[Mapping[str, Any]]) -> None:
        append_rows(self.path / "evaluation.jsonl", rows)

    # -- rollouts, references and credit -------------------------------------------------------------------------------

    def write_rollouts(self, step: int, groups: Sequence[Group], kept: Sequence[bool]) -> None:
        """Store all groups that a step played, in their order; `kept` marks those that it learnt from."""
        lines, arrays = groups_to_bytes(step, groups, kept)
        write_atomic(self._step_path("rollouts", step, "safetensors"), arrays)
        write_atomic(self._step_path("rollouts", step, "jsonl"), lines)

    def read_rollouts(self, step: int) -> list[StoredGroup]:
        lines, arrays = (self._step_path("rollouts", step, suffix) for suffix in ("jsonl", "safetensors"))
        for path in (lines, arrays):
            if not path.is_file():
                raise FolderError(
                    f"{path}: no rollouts of step {step}; this run has those of {self._step_range('rollouts')}"
                )
        return groups_from_bytes(lines.read_bytes(), arrays.read_bytes(), str(lines))

    def write_credit(self, step: int, records: Mapping[str, CreditRecord]) -> None:
        """Store the credit of each rollout that the step learnt from, by the name of the rollout."""
        write_atomic(self._step_path("credit", step, "safetensors"), credit_to_bytes(records))

    def read_credit(self, step: int) -> dict[str, CreditRecord]:
        path = self._step_path("credit", step, "safetensors")
        if not path.is_file():
            raise FolderError(f"{path}: no credit of step {step}; this run has that of {self._step_range('credit')}")
        return credit_from_bytes(path.read_bytes(), str(path))

    def write_references(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Store the reference of each group that the step learnt from: task, text, hash, or why there is none."""
        path = self._step_path("references", step, "jsonl")
        write_atomic(path, b"".join(to_json_line({"schema": SCHEMA, "step": step, **row}) for row in rows))

    def read_references(self, step: int) -> list[Row]:
        """Empty for a method that needs no reference."""
        return read_rows(self._step_path("references", step, "jsonl"))

    def steps_with_rollouts(self) -> list[int]:
        """Steps whose rollouts the folder still has, oldest first."""
        return self._steps("rollouts")

    # -- resuming -----------------------------------------------------------------------------------------------------

    def rewind(self, step: int) -> None:
        """Drops every record after `step` and every half-written file; -1 drops all. Journals of calls stay whole."""
        for name in ("metrics.jsonl", "evaluation.jsonl"):
            path = self.path / name
            if path.exists():
                rows = [row for row in read_rows(path) if row["step"] <= step]
                write_atomic(path, b"".join(to_json_line(row) for row in rows))
        for name in _STEP_FOLDERS:
            for path in (self.path / name).glob("[0-9]*"):
                if int(path.name.split(".")[0]) > step:
                    path.unlink()
        for folder in (self.path, *(self.path / name for name in (*_STEP_FOLDERS, "checkpoints"))):
            for leftover in folder.glob(".*.new"):
                remove(leftover)

    def checkpoint_path(self, step: int) -> Path:
        return self.path / "checkpoints" / f"{step:04d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that a run can resume from, oldest first."""
        folder = self.path / "checkpoints"
        return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []

    @property
    def best_path(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def calls_path(self) -> Path:
        """One row for each call to the writer; `rewind` keeps them, because the money is spent."""
        return self.path / "calls.jsonl"

    @property
    def user_calls_path(self) -> Path:
        """One row for each call to the model that plays the user."""
        return self.path / "user-calls.jsonl"

    @property
    def policy_path(self) -> Path:
        return self.path / "policy"

    def _step_path(self, name: str, step: int, suffix: str) -> Path:
        return self.path / name / f"{step:04d}.{suffix}"

    def _steps(self, name: str) -> list[int]:
        return sorted({int(path.name.split(".")[0]) for path in (self.path / name).glob("[0-9]*")})

    def _step_range(self, name: str) -> str:
        steps = self._steps(name)
        return f"steps {steps[0]} to {steps[-1]}" if steps else "no step"


def _may_be_overwritten(name: str) -> bool:
    return name == "facts.json" or (name.startswith(".") and name.endswith(".new"))
