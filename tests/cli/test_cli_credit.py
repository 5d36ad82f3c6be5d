"""sgcd credit as it is typed: recorded rollouts become references, weights, rows and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.recorded import MIXED, asks, booking, says, write_lines
from sgcd.cli import main
from sgcd.storage.run_folder import RunFolder

Capture = pytest.CaptureFixture[str]
RECIPE = str(Path(__file__).parents[2] / "recipes/lab/sgcd.yaml")
LOOKS = "Successful attempts call look before book."


@pytest.fixture
def rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [*MIXED, booking(2, 0.0, task="t2"), booking(3, 0.0, task="t2"), {"text": "no rollout"}]
    return write_lines(Path("seats.jsonl"), rows)


def read_rows(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "credit.jsonl").read_text().splitlines()]


def refusal(words: Sequence[str], capsys: Capture, code: int = 2) -> str:
    assert main(["credit", *words]) == code
    return capsys.readouterr().err


def test_without_a_model_it_says_what_parts_siblings_and_where(rollouts: Path, capsys: Capture) -> None:
    assert main(["credit", str(rollouts), "--no-score", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["usable"], result["all_tasks"], result["mixed_tasks"]) == (7, 6, 2, 1)
    assert [*result["unusable"].values()] == [1]
    [task] = result["tasks"]
    assert (task["task"], task["num_successes"], task["num_rollouts"]) == ("t1", 2, 4)
    assert LOOKS in task["reference"].splitlines()
    rows = read_rows(result["folder"])
    assert [row["from"] for row in rows] == [f"seats.jsonl, line {line}" for line in (1, 2, 3, 4)]
    for row in rows:
        assert len(row["token_ids"]) == len(row["weights"]) == len(row["mask"])
    success, failure = rows[0], rows[1]
    assert [turn["weight"] for turn in success["turns"]] == [2, 2, 1]  # it looks, then books another number
    assert [turn["weight"] for turn in failure["turns"]] == [2, 1]
    assert success["turns"][0]["calls"] == [{"name": "look", "weight": 2.0, "share": success["turns"][0]["share"]}]
    assert (success["advantage"] > 0, failure["advantage"] < 0) == (True, True)
    page = (Path(result["folder"]) / "report.html").read_text()
    assert LOOKS in page
    assert "1 have siblings that differ" in page
    assert main(["check", result["folder"]]) == 0


def test_the_table_names_the_deciding_turns_and_what_was_not_used(rollouts: Path, capsys: Capture) -> None:
    assert main(["credit", str(rollouts), "--no-score", "--out", "A"]) == 0
    printed = capsys.readouterr().out
    assert "6 of 7 rows are rollouts, of 2 tasks, 1 of them with siblings that differ" in printed
    assert "not used: 1, messages: missing" in printed
    assert "turn 1 of sibling 1 (failure)" in printed


def test_rewards_below_the_threshold_are_contrasted_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [booking(3, 0.9, looks=True), booking(2, 0.4), booking(2, 0.4), booking(3, 0.9, looks=True)]
    path = write_lines(Path("graded.jsonl"), rows)
    assert main(["credit", str(path), "--no-score", "--out", "A"]) == 0
    assert "no reward reaches 1 (the best is 0.9): better rewards are contrasted with worse" in capsys.readouterr().out
    assert LOOKS in read_rows("A")[0]["reference"]
    assert main(["credit", str(path), "--no-score", "--success", "0.9", "--out", "B"]) == 0
    assert "no reward reaches" not in capsys.readouterr().out
    assert [row["success"] for row in read_rows("B")] == [True, False, False, True]


def test_a_stopped_command_goes_on_with_its_next_batch(
    rollouts: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sgcd.recorded.run as run_module

    rows = [
        booking(seats, reward, looks=bool(reward), task=f"t{task}")
        for task in range(3)
        for seats, reward in [(3, 1), (2, 0)]
    ]
    path = write_lines(Path("many.jsonl"), rows)
    monkeypatch.setattr(run_module, "BATCH_TASKS", 1)
    assert main(["credit", str(path), "--no-score", "--out", "A"]) == 0
    whole = (Path("A") / "credit.jsonl").read_bytes()
    weigh = run_module.RecordedRun._weigh

    async def stopped(self: Any, number: int, *rest: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt
        await weigh(self, number, *rest)

    with monkeypatch.context() as stop:
        stop.setattr(run_module.RecordedRun, "_weigh", stopped)
        assert main(["credit", str(path), "--no-score", "--out", "B"]) == 130
    assert "to go on: sgcd credit --out B --resume" in capsys.readouterr().err
    assert main(["credit", "--out", "B", "--resume"]) == 0
    assert (Path("B") / "credit.jsonl").read_bytes() == whole
    write_lines(path, rows[:-1])
    assert "have changed since it was begun" in refusal(["--out", "B", "--resume"], capsys)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "which rollouts? sgcd credit FILE --no-score"),
        (["seats.jsonl"], "who scores? give --policy FOLDER"),
        (["seats.jsonl", "--no-score", "--policy", "p"], "who scores?"),
        (["nothing.jsonl", "--no-score"], "nothing.jsonl: is no file of rollouts; expected .jsonl"),
        (["seats.jsonl", "--no-score", "method.name=sgcd"], "method.name=sgcd: needs a policy's scores"),
        (["seats.jsonl", "--no-score", "method.gama=2"], "method.gama=2: no such key"),
        (["seats.jsonl", "--no-score", "reference.writer.name=oracle"], "oracle: knows the truth of the lab alone"),
        (["seats.jsonl", "--no-score", "control=permuted"], "control=permuted: a control is trained"),
        (["seats.jsonl", "--no-score", "--out", "."], "the folder is not empty"),
        (["--resume"], "--resume: which folder?"),
        (["--resume", "--out", "x", "seats.jsonl"], "--resume: goes on as the folder was begun"),
        (["--resume", "--out", "x"], "x: does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], complaint: str, rollouts: Path, capsys: Capture) -> None:
    error = refusal(words, capsys)
    assert complaint in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_rollouts_is_named_by_line_and_field(rollouts: Path, capsys: Capture) -> None:
    write_lines(Path("other.jsonl"), [{"messages": [asks("a"), says("b")]}])
    error = refusal(["other.jsonl", "--no-score", "--out", "A"], capsys)
    assert "other.jsonl, line 1: reward: expected a finite number, got nothing" in error
    assert not Path("A").exists()


def test_where_no_siblings_differ_there_is_no_result(rollouts: Path, capsys: Capture) -> None:
    write_lines(Path("same.jsonl"), MIXED[:1] * 3)
    assert "no siblings differ in their rewards" in refusal(["same.jsonl", "--no-score", "--out", "A"], capsys, code=1)


def test_recorded_rollouts_are_no_environment_to_train_in(rollouts: Path, capsys: Capture) -> None:
    assert main(["credit", str(rollouts), "--no-score", "--out", "A"]) == 0
    assert main(["check", "A/recipe.yaml", "policy.start=lab:plain"]) == 2
    assert "recorded rollouts cannot be played" in capsys.readouterr().err


@pytest.mark.slow
def test_a_runs_own_rollouts_get_the_credit_of_the_run_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["steps=1", "siblings.groups=6", "evaluation.tasks=1", "evaluation.trials=1", "evaluation.every=5"]
    assert main(["train", RECIPE, "--run", "run", *small]) == 0
    trained = RunFolder.open(Path("run"))
    played = [one for stored in trained.read_rollouts(1) if stored.is_kept for one in stored.group.rollouts]
    names = ("messages", "tools", "private", "category", "reward")
    rows = [{"task_id": one.task, **{name: getattr(one, name) for name in names}} for one in played]
    path = write_lines(Path("own.jsonl"), rows)
    method = "method={name: sgcd, k: 20, segments: {min_tokens: 8, entropy_quantile: 1.0, quiet_tokens: 1}}"
    capsys.readouterr()
    assert main(["credit", str(path), "--policy", "lab:plain", "--out", "A", method, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mixed_tasks"] == 6
    credited = RunFolder.open(Path("A"))
    read_again = {one.name: one for stored in credited.read_rollouts(1) for one in stored.group.rollouts}
    own, other = trained.read_credit(1), credited.read_credit(1)
    for rollout in played:
        again = read_again[rollout.name]
        np.testing.assert_array_equal(again.prompt, rollout.prompt)
        np.testing.assert_array_equal(again.response, rollout.response)
        np.testing.assert_array_equal(again.response_mask, rollout.response_mask)
        np.testing.assert_array_equal(other[rollout.name].credit.weight, own[rollout.name].credit.weight)
        assert other[rollout.name].credit.advantage == own[rollout.name].credit.advantage
    assert any((one.credit.weight > 1).any() for one in other.values())
    rows = read_rows("A")
    assert rows[0]["weights"] == pytest.approx(own[played[0].name].credit.weight.tolist(), rel=1e-3)
    metrics = credited.read_metrics()[0]
    assert metrics.credit is not None
    assert metrics.credit.reading == trained.read_metrics()[0].credit.reading  # pyright: ignore[reportOptionalMemberAccess]
    monkeypatch.setattr("sgcd.recorded.run.why_not_read", lambda rows: "own above swapped in .41")
    assert main(["credit", str(path), "--policy", "lab:plain", "--out", "B", method]) == 0
    assert {weight for row in read_rows("B") for weight in row["weights"]} == {1}
