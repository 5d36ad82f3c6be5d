"""A run's folder: the names, readers and writers of its files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sgcd.credit_records import CreditRecord
from sgcd.errors import DamageError, FolderError
from sgcd.records import Group
from sgcd.storage.atomic import SCHEMA, Row, check_schema, remove, to_json_line, write_atomic, writing
from sgcd.storage.lock import LOCK_FILE
from sgcd.storage.manifest import MANIFEST_FILE, RowFiles, RunManifest, checksum, find_file_damage
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.record_files import (
    StoredGroup,
    credit_from_bytes,
    credit_to_bytes,
    find_foreign_trials,
    groups_from_bytes,
    groups_to_bytes,
    parse_metrics,
    reading,
)
from sgcd.storage.rows import RowCount, read_rows
from sgcd.storage.yaml import YamlData, load_yaml

REPORT_FILE = "report.html"
TRAINED_FILE = "trained.json"
"""In the folder of an exported policy: the step that it was saved after."""
STATE_FILE = "state.json"
"""In the folder of a checkpoint: the trainer's state, with the step that it was saved after."""
_HAS_CHECKSUMS = "checksums"  # in facts.json: the run has manifests and checks of rows
_FILES_KEY = "files"
"""In a row of metrics.jsonl: the checksums of the files that the step wrote."""
ROW_FILES = ("metrics.jsonl", "evaluation.jsonl")
"""Row files whose rows belong to a step."""
RunKind = Literal["training", "supervised", "collection", "evaluation", "recorded"]
_KINDS: tuple[RunKind, ...] = ("supervised", "collection", "evaluation", "recorded")  # named after their facts
_STEP_FOLDERS = ("rollouts", "references", "credit")
"""Folders whose files have the number of a step as their name."""


class RunFolder:
    """The folder holds everything that is known about a run; reports and terminals only read it.

    What is read is verified. `facts.json` says whether the run has checksums; one of sgcd 0.1 has none.
    """

    def __init__(self, path: Path, facts: Row) -> None:
        self.path = path
        self.facts = facts
        self.row_files = RowFiles(path, self.has_checksums)
        self._new_checksums: dict[str, str] = {}
        """Of the files of the step in progress, which its row of metrics.jsonl will hold."""
        self._read_checksums: tuple[RowCount | None, dict[str, str]] | None = None
        """Of the files of all steps that metrics.jsonl had when it held so many rows."""

    @classmethod
    def create(cls, path: Path, recipe_text: str, facts: Mapping[str, Any]) -> "RunFolder":
        """Create a run folder. A folder without `recipe.yaml`, which is written last, can be created again."""
        cls.check_free(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        facts = {"schema": SCHEMA, _HAS_CHECKSUMS: "sha256", **facts}
        manifest = RunManifest(path / MANIFEST_FILE, rows={name: RowCount() for name in ROW_FILES})
        manifest.replace_file(path / "facts.json", (json.dumps(facts, indent=2) + "\n").encode())
        manifest.replace_file(path / "recipe.yaml", recipe_text.encode())
        return cls(path, facts)

    @staticmethod
    def check_free(path: Path) -> None:
        """Refuse a folder that holds something."""
        if path.exists() and (
            not path.is_dir() or any(not _may_be_overwritten(entry.name) for entry in path.iterdir())
        ):
            raise FolderError(
                f"{path}: the folder is not empty; choose another one, or go on with this run by --resume"
            )

    @staticmethod
    def check_is_run(path: Path) -> None:
        """Refuse a folder that is no run's."""
        missing = [name for name in ("recipe.yaml", "facts.json") if not (path / name).is_file()]
        if missing:
            problem = f"is not a run's folder, it has no {missing[0]}" if path.is_dir() else "does not exist"
            raise FolderError(f"{path}: {problem}; expected one that `sgcd train RECIPE --run {path}` has made")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        cls.check_is_run(path)
        with reading(path / "facts.json"):
            facts = json.loads((path / "facts.json").read_bytes())
            check_schema(facts, path / "facts.json")
        folder = cls(path, facts)
        if folder.has_checksums or (path / MANIFEST_FILE).exists():
            manifest = RunManifest.read(path / MANIFEST_FILE)
            for name in ("facts.json", "recipe.yaml"):
                manifest.check_file(path / name)
        return folder

    @property
    def has_checksums(self) -> bool:
        """Whether damage can be noticed: a run of sgcd 0.1 has no checksums, and is read without."""
        return _HAS_CHECKSUMS in self.facts

    @property
    def kind(self) -> RunKind:
        """A run records the machine that it runs on; earlier versions' evaluations of an endpoint did not."""
        for kind in _KINDS:
            if kind in self.facts:
                return kind
        return "training" if "machine" in self.facts else "evaluation"

    @property
    def recipe_text(self) -> str:
        with reading(self.path / "recipe.yaml"):
            return (self.path / "recipe.yaml").read_text(encoding="utf-8")

    def read_recipe(self) -> YamlData:
        """The recipe with every key written out, not checked; see recipe/load.py."""
        path = self.path / "recipe.yaml"
        recipe = load_yaml(self.recipe_text, str(path))
        if not isinstance(recipe.get("environment"), dict):
            raise DamageError(f"{path}: has no environment, which every recipe of a run names")
        return recipe

    def replace_recipe(self, text: str) -> None:
        """Replace the recipe of a resumed run whose changed keys may change."""
        if manifest := self.row_files.read_manifest():
            manifest.replace_file(self.path / "recipe.yaml", text.encode())
        else:
            write_atomic(self.path / "recipe.yaml", text.encode())

    # -- rows ---------------------------------------------------------------------------------------------------------

    def read_metrics(self) -> list[StepMetrics]:
        """One row for each step."""
        return parse_metrics(self.row_files.read("metrics.jsonl"), self.path / "metrics.jsonl")

    def append_metrics(self, row: StepMetrics) -> None:
        """Append the row of a step, with the checksums of the files that the step wrote."""
        checksums, self._new_checksums = self._new_checksums, {}
        self.row_files.append("metrics.jsonl", [{**row.to_json(), _FILES_KEY: checksums}])

    def read_evaluations(self) -> list[Row]:
        """One row for each trial."""
        rows = self.row_files.read("evaluation.jsonl")
        for problem in find_foreign_trials(rows, self.path / "evaluation.jsonl"):
            raise DamageError(problem)
        return rows

    def append_evaluation(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows of an evaluation, all or none."""
        self.row_files.append("evaluation.jsonl", rows)

    def scan_metrics(self) -> tuple[list[StepMetrics], list[str]]:
        """The whole rows of metrics.jsonl, and what is wrong with the others."""
        scan = self.row_files.scan("metrics.jsonl")
        return parse_metrics(scan.rows, self.path / "metrics.jsonl"), scan.problems

    def scan_evaluations(self) -> tuple[list[Row], list[str]]:
        """The rows of evaluation.jsonl, or none and what is wrong: a part of an evaluation misleads."""
        scan = self.row_files.scan("evaluation.jsonl")
        problems = scan.problems or [*find_foreign_trials(scan.rows, self.path / "evaluation.jsonl")]
        return ([] if problems else scan.rows), problems

    # -- rollouts, references and credit -------------------------------------------------------------------------------

    def write_rollouts(self, step: int, groups: Sequence[Group], kept: Sequence[bool]) -> None:
        """Store all groups that a step played, in their order; `kept` marks those that it learnt from."""
        lines, arrays = groups_to_bytes(step, groups, kept)
        self._write_step_file("rollouts", step, "safetensors", content=arrays)
        self._write_step_file("rollouts", step, "jsonl", content=lines)

    def read_rollouts(self, step: int) -> list[StoredGroup]:
        lines, arrays = (self._step_path("rollouts", step, suffix) for suffix in ("jsonl", "safetensors"))
        for path in (lines, arrays):
            self._check_step_file(path, f"no rollouts of step {step}; this run has those of")
        with reading(lines):
            return groups_from_bytes(lines.read_bytes(), arrays.read_bytes(), str(lines))

    def write_credit(self, step: int, records: Mapping[str, CreditRecord]) -> None:
        """Store the credit of each rollout that the step learnt from, by the name of the rollout."""
        self._write_step_file("credit", step, "safetensors", content=credit_to_bytes(records))

    def read_credit(self, step: int) -> dict[str, CreditRecord]:
        path = self._step_path("credit", step, "safetensors")
        self._check_step_file(path, f"no credit of step {step}; this run has that of")
        with reading(path):
            return credit_from_bytes(path.read_bytes(), str(path))

    def write_references(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Store the reference of each group that the step learnt from: task, text, hash, or why there is none."""
        content = b"".join(to_json_line({"schema": SCHEMA, "step": step, **row}) for row in rows)
        self._write_step_file("references", step, "jsonl", content=content)

    def read_references(self, step: int) -> list[Row]:
        """Empty for a method that needs no reference."""
        path = self._step_path("references", step, "jsonl")
        if not path.is_file() and self._name(path) not in self.step_checksums():
            return []
        self._check_step_file(path, f"no references of step {step}; this run has those of")
        return read_rows(path)

    def steps_with_rollouts(self) -> list[int]:
        """Steps whose rollouts the folder still has, oldest first."""
        return self._steps("rollouts")

    def step_files(self) -> list[str]:
        """The files of all steps, as paths in the folder."""
        return [self._name(path) for name in _STEP_FOLDERS for path in sorted((self.path / name).glob("[0-9]*"))]

    def find_lost_step_files(self) -> list[str]:
        """Files of steps that the run wrote and that are gone."""
        return [f"{self.path / name}: is missing" for name in self.step_checksums() if not (self.path / name).exists()]

    def step_checksums(self) -> dict[str, str]:
        """Checksums of the files that the steps wrote, by file; of a run without checksums, none."""
        count = self.row_files.count("metrics.jsonl")
        if self._read_checksums is None or count != self._read_checksums[0]:
            rows = self.row_files.scan("metrics.jsonl").rows
            self._read_checksums = (count, {name: s for row in rows for name, s in row.get(_FILES_KEY, {}).items()})
        return self._read_checksums[1]

    def _write_step_file(self, name: str, step: int, suffix: str, *, content: bytes) -> None:
        path = self._step_path(name, step, suffix)
        write_atomic(path, content)
        self._new_checksums[self._name(path)] = checksum(content)

    def _check_step_file(self, path: Path, absent: str) -> None:
        """Refuse a file that is damaged, that was lost, or that the run never had."""
        recorded = self.step_checksums().get(self._name(path))
        if recorded is not None:
            for problem in find_file_damage(path, [recorded]):
                raise DamageError(problem)
        elif not path.is_file():
            raise FolderError(f"{path}: {absent} {self._step_range(path.parent.name)}")

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.path))

    # -- resuming -----------------------------------------------------------------------------------------------------

    def rewind(self, step: int) -> None:
        """Drops every record after `step` and every half-written file; -1 drops all. Journals of calls stay whole."""
        for name in ROW_FILES:
            self.row_files.rewind(name, step)
        for name in _STEP_FOLDERS:
            for path in (self.path / name).glob("[0-9]*"):
                if int(path.name.split(".")[0]) > step:
                    path.unlink()
        for folder in (self.path, *(self.path / name for name in (*_STEP_FOLDERS, "checkpoints"))):
            for leftover in folder.glob(".*.new"):
                if not leftover.name.startswith(f".{REPORT_FILE}."):  # somebody else may be writing one
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
    def report_path(self) -> Path:
        return self.path / REPORT_FILE

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
    return name in ("facts.json", MANIFEST_FILE, LOCK_FILE) or (name.startswith(".") and name.endswith(".new"))
