"""Each file of a run damaged in eleven ways: every command names it, mends it or shows the rest; none is silent."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from helpers.old_runs import drop_checksums
from sgcd.storage.metrics import EndpointUsage, SpentBudget, StepMetrics
from sgcd.storage.rows import drop_damaged_rows, to_checked_line
from sgcd.storage.run_folder import RunFolder
from sgcd.storage.verify import find_lost_calls, verify_run

ROOT = Path(__file__).parents[2]
FINE = {"named", "refused", "mended", "right", "rest shown", "not read"}
"""What a command may do. `not read`: the run goes on rightly and leaves the file as it is, for `sgcd check` to find."""


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench/storage"))
        return import_module("damage")


@pytest.fixture(scope="module")
def runs(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    before = Path.cwd()
    yield bench.build_runs(tmp_path_factory.mktemp("damage") / "desk")
    os.chdir(before)


@pytest.mark.parametrize(
    ("file", "kind", "expected"),
    [
        ("metrics.jsonl", "bit flipped", {"resume": "named", "report": "rest shown"}),
        ("evaluation.jsonl", "truncated to 60 %", {"resume": "named", "compare": "named"}),
        ("checkpoints/0003/model.safetensors", "bit flipped", {"resume": "named", "fall back": "mended"}),
        ("checkpoints/0003/sgcd-manifest.json", "deleted", {"resume": "named"}),
        ("rollouts/0002.jsonl", "deleted", {"report": "rest shown", "compare": "right"}),
        ("facts.json", "not UTF-8", {"resume": "named", "report": "named", "compare": "named", "check": "named"}),
    ],
)
def test_what_each_command_does_about_damage(runs: Any, file: str, kind: str, expected: dict[str, str]) -> None:
    assert {verb: runs.outcome(file, kind, verb) for verb in expected} == expected


def test_a_check_finds_every_damage(bench: Any, runs: Any) -> None:
    for number, file in enumerate(bench.FILES):
        kind = bench.KINDS[number % len(bench.KINDS)]
        expected = "right" if file == "report.html" else "named"  # it is made anew, and nothing reads it
        assert runs.outcome(file, kind, "check") == expected, (file, kind)


def test_a_check_of_a_run_can_be_read_by_a_program(bench: Any, runs: Any) -> None:
    code, out, _ = bench.run_command("check", "whole", "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["run"], report["damage"], report["num_unverified"]) == ("whole", [], 0)
    assert report["num_verified"] > 50
    for typed, said in (
        (["check", "whole", "steps=3"], "steps=3: only goes with a recipe"),
        (["check", "policy"], "policy: is not a run's folder, it has no recipe.yaml"),
        (["train", "recipe.yaml", "--run", "new", "--fall-back"], "--fall-back: only goes with --resume"),
    ):
        code, _, err = bench.run_command(*typed)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err


@pytest.mark.slow
def test_a_run_without_a_whole_checkpoint_starts_again(bench: Any, runs: Any) -> None:
    shutil.copytree("whole", "spoilt")
    for state in Path("spoilt").rglob("state.json"):
        state.write_bytes(b"")
    resume = ["train", "--run", "spoilt", "--resume", "steps=4"]
    assert bench.run_command(*resume)[0] == 2
    code, _, err = bench.run_command(*resume, "--fall-back")
    assert code == 0
    assert "going on from the start, since no checkpoint is whole" in err
    assert Path("spoilt/policy/model.safetensors").read_bytes() == runs.policy
    assert verify_run(Path("spoilt")).damage == []


def test_calls_that_are_lost_are_counted(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "version: 1\n", {})
    usage = EndpointUsage(spent=SpentBudget(calls=3))
    folder.append_metrics(StepMetrics(step=1, endpoint=usage))
    lines = [to_checked_line("calls.jsonl", number, {"schema": 1, "money": 0}) for number in (1, 2, 3)]
    folder.calls_path.write_bytes(b"".join(lines))
    assert [*find_lost_calls(folder)] == []
    folder.calls_path.write_bytes(b"".join([lines[0], lines[2]]))
    assert drop_damaged_rows(folder.calls_path) == [
        f"{folder.calls_path}, line 2: is not the row that was written, its check does not fit"
    ]
    assert [*find_lost_calls(folder)] == [f"{folder.calls_path}: has 1 whole rows, expected the 3 calls of the run"]
    assert [*find_lost_calls(folder, 0)] == []


@pytest.mark.slow
def test_no_damage_is_passed_over_in_silence(bench: Any, runs: Any) -> None:
    seen = {
        (file, kind, verb, outcome)
        for file in bench.FILES
        for kind in bench.KINDS
        for verb, outcome in bench.outcomes_of(runs, file, kind).items()
        if outcome not in FINE
    }
    assert seen == set()


@pytest.fixture
def old_runs(runs: Any) -> Iterator[Any]:
    """The same run as sgcd 0.1 would have left it."""
    shutil.copytree("whole", "old", dirs_exist_ok=True)
    drop_checksums(Path("old"))
    runs.source = Path("old")
    yield runs
    runs.source = Path("whole")


@pytest.mark.slow
def test_a_run_without_checksums_is_read_and_resumed(bench: Any, old_runs: Any) -> None:
    report = verify_run(Path("old"))
    assert (report.damage, report.num_verified) == ([], 0)
    assert report.num_unverified > 30
    for verb in ("report", "compare", "check"):
        assert bench.run_command(*old_runs.command(verb, "old"))[0] == 0, verb
    assert old_runs.outcome("report.html", "emptied", "resume") == "right"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("recipe.yaml", "truncated to 5 %"),
        ("evaluation.jsonl", "swapped"),
        pytest.param("policy/trained.json", "not UTF-8", marks=pytest.mark.slow),
        pytest.param("*", "*", marks=pytest.mark.slow),
    ],
)
def test_damage_of_a_run_without_checksums_is_no_traceback(bench: Any, old_runs: Any, file: str, kind: str) -> None:
    files = [name for name in bench.FILES if file in ("*", name) and (Path("old") / name).exists()]
    kinds = [name for name in bench.KINDS if kind in ("*", name)]
    outcomes = {
        (name, how, verb, outcome)
        for name in files
        for how in kinds
        for verb in bench.VERBS
        if (outcome := old_runs.outcome(name, how, verb)).startswith(("TRACEBACK", "MORE"))
    }
    assert outcomes == set()
