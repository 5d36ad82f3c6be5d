"""What a policy's forward passes leave of a batch of recorded rollouts; on disk, so that no pass is repeated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sgcd.credit_records import Credit, CreditRecord, Features, Teacher
from sgcd.records import Flags, Floats
from sgcd.storage.atomic import Row, to_json_line, write_atomic
from sgcd.storage.credit_metrics import ReadingCounts
from sgcd.storage.record_files import credit_from_bytes, credit_to_bytes, reading


@dataclass(slots=True)
class BatchScores:
    """References and scores of one batch, by the name of a rollout; only references where no policy scores."""

    references: list[Row] = field(default_factory=list[Row])
    features: dict[Teacher, dict[str, CreditRecord]] = field(default_factory=dict[Teacher, dict[str, CreditRecord]])
    """By teacher; the weights of these records are one."""
    student: dict[str, CreditRecord] = field(default_factory=dict[str, CreditRecord])
    """The student's log-probabilities, as the gap, and entropies."""
    skip_reasons: dict[str, str] = field(default_factory=dict[str, str])
    """Why a rollout has no teacher."""
    reading_counts: list[ReadingCounts] = field(default_factory=list[ReadingCounts])

    def features_of(self, name: str) -> dict[Teacher, Features]:
        return {
            teacher: record.features
            for teacher, records in self.features.items()
            if name in records and (record := records[name]).features is not None
        }

    def outside_literals_of(self, name: str) -> Flags | None:
        return next((records[name].outside_literals for records in self.features.values() if name in records), None)

    def logprobs_of(self, name: str) -> tuple[Floats, Floats] | None:
        """The student's log-probability and entropy of each token; None where no policy scored."""
        features = self.student[name].features if name in self.student else None
        if features is None or features.student_entropy is None:
            return None
        return features.teacher_logprob_gap, features.student_entropy


def unscored_record(
    num_tokens: int, features: Features | None = None, outside_literals: Flags | None = None
) -> CreditRecord:
    """A record of scores, before any credit."""
    return CreditRecord(Credit(0.0, np.ones(num_tokens, np.float32)), features, outside_literals)


def student_record(logprobs: Floats, entropies: Floats) -> CreditRecord:
    zeros = np.zeros(len(logprobs), np.float32)
    return unscored_record(len(logprobs), Features(zeros, zeros, logprobs, entropies))


def write_scores(folder: Path, number: int, scores: BatchScores, teachers: Sequence[Teacher]) -> None:
    """Write the scores of a batch; its row, which makes them count, comes last."""
    for index, teacher in enumerate(teachers):
        write_atomic(_array_path(folder, number, f"teacher-{index}"), credit_to_bytes(scores.features[teacher]))
    write_atomic(_array_path(folder, number, "student"), credit_to_bytes(scores.student))
    row = {
        "references": scores.references,
        "skip_reasons": scores.skip_reasons,
        "reading": [counts.model_dump() for counts in scores.reading_counts],
    }
    write_atomic(_row_path(folder, number), to_json_line(row))


def has_scores(folder: Path, number: int) -> bool:
    return _row_path(folder, number).is_file()


def read_scores(folder: Path, number: int, teachers: Sequence[Teacher]) -> BatchScores:
    """The scores of a batch that `write_scores` wrote."""
    path = _row_path(folder, number)
    with reading(path):
        row: Row = json.loads(path.read_bytes())
        counts = [ReadingCounts.model_validate(one) for one in row["reading"]]
        scores = BatchScores(row["references"], reading_counts=counts, skip_reasons=dict(row["skip_reasons"]))
    parts = {f"teacher-{index}": teacher for index, teacher in enumerate(teachers)}
    for name in (*parts, "student"):
        path = _array_path(folder, number, name)
        with reading(path):
            records = credit_from_bytes(path.read_bytes(), str(path))
        if name in parts:
            scores.features[parts[name]] = records
        else:
            scores.student = records
    return scores


def _row_path(folder: Path, number: int) -> Path:
    return folder / "scores" / f"{number:04d}.json"


def _array_path(folder: Path, number: int, name: str) -> Path:
    return folder / "scores" / f"{number:04d}.{name}.safetensors"
