"""Rows with checks: what was appended is read, and every lost, changed, moved or added byte is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgcd.errors import DamageError
from sgcd.storage.manifest import MANIFEST_FILE, RowFiles, RunManifest
from sgcd.storage.rows import RowCount, append_checked_rows, read_rows, scan_rows

Rows = list[dict[str, Any]]
rows_drawn = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), min_size=1, max_size=5
).map(lambda rows: [{**row, "step": number} for number, row in enumerate(rows)])
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def written(folder: Path, rows: Rows) -> tuple[Path, RowCount]:
    path = folder / "metrics.jsonl"
    path.unlink(missing_ok=True)
    rows = [{**row, "schema": 1} for row in rows]
    return path, append_checked_rows(path, rows, RowCount())


@in_one_folder
@given(rows=rows_drawn, later=rows_drawn)
def test_what_was_appended_is_read(tmp_path: Path, rows: Rows, later: Rows) -> None:
    path, count = written(tmp_path, rows)
    with path.open("ab") as file:
        file.write(b'{"schema": 1, "never": "counted"}\n{"to')
    count = append_checked_rows(path, later, count)
    assert [row["step"] for row in read_rows(path, count)] == [row["step"] for row in [*rows, *later]]
    assert path.stat().st_size == count.num_bytes


@in_one_folder
@given(rows=rows_drawn, data=st.data())
def test_every_changed_byte_is_noticed(tmp_path: Path, rows: Rows, data: st.DataObject) -> None:
    path, count = written(tmp_path, rows)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(DamageError, match=r"metrics\.jsonl"):
        read_rows(path, count)


@in_one_folder
@given(rows=rows_drawn, data=st.data())
def test_every_lost_or_moved_line_is_noticed_and_those_before_it_count(
    tmp_path: Path, rows: Rows, data: st.DataObject
) -> None:
    path, count = written(tmp_path, rows)
    lines = path.read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    changed = data.draw(st.sampled_from([lines[:at] + lines[at + 1 :], lines[: at + 1] + lines[at:]]))
    if at:
        changed = data.draw(st.sampled_from([changed, [*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]]]))
    path.write_bytes(b"".join(changed))
    scan = scan_rows(path, count)
    is_only_longer = changed[: len(lines)] == lines  # what lies behind the count was never finished
    assert bool(scan.problems) != is_only_longer
    assert scan.num_before_damage in ({len(lines)} if is_only_longer else {at - 1, at, at + 1})


def test_a_row_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path, count = written(tmp_path, [{"step": 1}, {"step": 2}])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DamageError, match="has 1 whole rows, expected 2"):
        read_rows(path, count)
    with pytest.raises(DamageError, match="is shorter than its 2 rows"):
        append_checked_rows(path, [{"step": 3}], count)
    path.unlink()
    with pytest.raises(DamageError, match="is missing, expected 2 rows"):
        read_rows(path, count)


def test_rows_of_another_file_and_rows_without_a_check_are_refused(tmp_path: Path) -> None:
    path, count = written(tmp_path, [{"step": 1}])
    path.rename(tmp_path / "evaluation.jsonl")
    with pytest.raises(DamageError, match="its check does not fit"):
        read_rows(tmp_path / "evaluation.jsonl", count)
    path.write_text('{"schema": 1}\n')
    with pytest.raises(DamageError, match="it has no check"):
        read_rows(path, RowCount(1, path.stat().st_size))


def test_rewinding_keeps_rows_in_their_order_and_counts_them(tmp_path: Path) -> None:
    manifest = RunManifest(tmp_path / MANIFEST_FILE)
    manifest.write()
    files = RowFiles(tmp_path, has_manifest=True)
    for step in (1, 4, 2, 5):
        files.append("evaluation.jsonl", [{"step": step, "trial": 0}, {"step": step, "trial": 1}])
    files.rewind("evaluation.jsonl", 2)
    assert [(row["step"], row["trial"]) for row in files.read("evaluation.jsonl")] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert files.num_rows("evaluation.jsonl") == 4
    files.append("evaluation.jsonl", [{"step": 3, "trial": 0}])
    assert len(files.read("evaluation.jsonl")) == 5


def test_a_file_that_is_being_replaced_is_recorded_as_it_was_and_as_it_will_be(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    manifest = RunManifest(tmp_path / MANIFEST_FILE)
    seen = list[bytes]()
    for content in (b"one", b"two", b"three"):
        manifest.replace_file(path, content)
        seen.append(path.read_bytes())
        RunManifest.read(manifest.path).check_file(path)
    assert seen == [b"one", b"two", b"three"]
    manifest.files["recipe.yaml"].append("0" * 64)
    manifest.check_file(path)
    path.write_bytes(b"four")
    with pytest.raises(DamageError, match=r"recipe\.yaml: is not as it was written"):
        manifest.check_file(path)
    manifest.path.write_bytes(manifest.path.read_bytes().replace(b"schema", b"sChema"))
    with pytest.raises(DamageError, match="its check does not fit"):
        RunManifest.read(manifest.path)


def test_a_line_is_json_anyone_can_read(tmp_path: Path) -> None:
    path, _ = written(tmp_path, [{"step": 1, "text": 'über ", "check": "0123456789abcdef"}'}])
    row = json.loads(path.read_text())
    assert (row["schema"], row["step"], len(row["check"])) == (1, 1, 16)
    assert "check" not in read_rows(path)[0]
