"""Rows of metrics.jsonl: what is written is read again, and rows of other versions are read too."""

from pathlib import Path

import pytest

from helpers.old_runs import drop_checksums
from sgcd.errors import FolderError
from sgcd.storage.credit_metrics import CreditMetrics, CreditOverlap, WeightHistogram, WeightMetrics
from sgcd.storage.metrics import EndpointUsage, ReferenceMetrics, RolloutMetrics, StepMetrics, UpdateMetrics
from sgcd.storage.run_folder import RunFolder


def test_a_row_is_built_from_its_parts_and_read_again() -> None:
    row = StepMetrics.build(
        step=3,
        rollouts=RolloutMetrics(tasks=2, success=0.5),
        update=UpdateMetrics(lr=0.1, reference=ReferenceMetrics(groups=2), credit=CreditMetrics(credited=7)),
        peak_memory=9,
        endpoint_usage={"user": EndpointUsage(calls=4)},
        seconds={"total": 1.5},
    )
    assert (row.tasks, row.success, row.lr, row.peak_memory, row.seconds["total"]) == (2, 0.5, 0.1, 9, 1.5)
    assert row.credit and row.credit.credited == 7
    assert row.endpoint_usage == {"user": EndpointUsage(calls=4)}
    assert StepMetrics.from_json(row.to_json()) == row


def test_absent_sections_are_left_out_and_absent_values_are_null() -> None:
    row = StepMetrics(step=1).to_json()
    assert list(row)[:3] == ["schema", "step", "tasks"]
    assert not {"reference", "credit", "endpoint", "user"} & {*row}
    assert row["kl"] is None
    credit = StepMetrics(step=1, credit=CreditMetrics()).to_json()["credit"]
    assert "shuffled" not in credit
    shuffled = CreditMetrics(next_reference=CreditOverlap(own_tokens=3))
    assert StepMetrics(step=1, credit=shuffled).to_json()["credit"]["shuffled"]["own"] == 3


def test_renamed_attributes_keep_their_keys() -> None:
    usage = EndpointUsage.model_validate({"asked": 3, "calls": 2})
    assert usage.requests == 3
    row = StepMetrics(
        step=1,
        endpoint=usage,
        credit=CreditMetrics(
            weight=WeightMetrics(histogram=WeightHistogram(num_unit=4)),
            next_reference=CreditOverlap(own_tokens=5, other_tokens=6, common_tokens=7),
        ),
    ).to_json()
    assert row["endpoint"]["asked"] == 3
    assert row["credit"]["weight"]["histogram"]["one"] == 4
    assert row["credit"]["shuffled"] == {"rollouts": 0, "own": 5, "other": 6, "both": 7, "overlap": None}
    assert StepMetrics.from_json(row).to_json() == row


def test_rows_of_other_versions_are_read() -> None:
    row = StepMetrics.from_json({"schema": 1, "step": 2, "credit": {"credited": 1, "new": 0}, "newer": [1]})
    assert (row.step, row.inexact_turns, row.invalid) == (2, 0, [])
    assert row.credit == CreditMetrics(credited=1)


def test_a_row_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "steps: 1\n", {})
    folder = drop_checksums(folder.path)
    (folder.path / "metrics.jsonl").write_text('{"schema": 1, "step": 1, "credit": {"credited": "many"}}\n')
    with pytest.raises(FolderError, match=r"metrics\.jsonl: credit\.credited: "):
        folder.read_metrics()


def test_a_folder_has_a_kind(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path / "a", "", {"machine": {"threads": 1}}).kind == "training"
    assert RunFolder.create(tmp_path / "b", "", {"model": {}}).kind == "evaluation"
