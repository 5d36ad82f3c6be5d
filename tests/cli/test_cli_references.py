"""sgcd references compare: a run's siblings written of in other ways, as JSON and as tables; mistakes are one line."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.misbehaving import Server
from helpers.old_runs import drop_checksums
from sgcd.cli import main
from sgcd.show.study_tables import sensitivity_tables
from sgcd.storage.atomic import to_json_line
from sgcd.storage.rows import read_rows

Capture = pytest.CaptureFixture[str]
LAB = ["recipes/lab/sgcd.yaml", "steps=1", "siblings.groups=3", "siblings.group_size=6", "evaluation.tasks=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("references") / "run"
    assert main(["train", *LAB, "evaluation.trials=1", "--run", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out := io.StringIO())
        assert main(["references", "compare", str(run), "--trials", "1", "--json"]) == 0
        return json.loads(out.getvalue())


@pytest.mark.slow
def test_every_arm_is_held_against_the_runs_own_references(found: dict[str, Any]):
    assert (found["schema"], found["groups"], found["steps"], found["writer"]) == (1, 3, [1], "built-in")
    assert [*found["arms"]] == [
        "own", "rewritten", "one pair", "what to do", "deviations", "leave one out", "shuffled",
        "errors 10%", "errors 25%", "errors 50%", "errors 100%",
    ]  # fmt: skip
    for name in ("own", "rewritten"):  # the same siblings, the same writer, the same text
        assert found["arms"][name]["same_text"] == 1
        assert found["arms"][name]["overlap"]["value"] in (1, None)
    for arm in found["arms"].values():
        assert arm["groups"] <= 3
        for figure in ("overlap", "credited"):
            assert arm[figure]["value"] is None or 0 <= arm[figure]["value"] <= 1
    assert found["arms"]["leave one out"]["references"] > 3


@pytest.mark.slow
def test_success_is_played_with_every_arm_of_one_text(found: dict[str, Any]):
    played = {name for name, arm in found["arms"].items() if arm["played"]}
    assert played == {*found["arms"]} - {"leave one out"}
    assert found["without"]["tasks"] == 3
    assert set(found["arms"]["shuffled"]["played"]) == {"tasks", "success", "less without", "less own"}


@pytest.mark.slow
def test_another_writer_is_asked_by_keys_of_the_recipe(run: Path, capsys: Capture):
    with Server(lambda number, request: "good" if number % 4 else "not json") as server:
        keys = f"reference.writer={{name: llm, base_url: '{server.url}', model: other, pause: 0.001, retries: 0}}"
        assert main(["references", "compare", str(run), keys, "--trials", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["writer"] == "other"
    assert told["calls"]["calls"] == server.requests > 3
    assert told["not written"] == {"unanswered unreadable": server.done["not json"]}
    arms = told["arms"]
    assert 0 < arms["rewritten"]["references"] < 3 == arms["built-in"]["references"]
    assert arms["rewritten"]["same_text"] == 0
    console = Console(width=130, record=True, file=io.StringIO())
    for one in sensitivity_tables(told):
        console.print(one)
    assert "texts that could not be written: unanswered unreadable" in console.export_text()


@pytest.mark.slow
def test_tables_show_it(found: dict[str, Any]):
    console = Console(width=130, record=True, file=io.StringIO())
    for one in sensitivity_tables(found):
        console.print(one)
    said = console.export_text()
    for words in ("ranks of weights", "leave one out", "Success with the reference", "less own", "3 groups of steps 1"):
        assert words in said


def test_one_group_is_shown_from_what_the_writer_read_to_what_was_credited(run: Path, capsys: Capture):
    rows = read_rows(run / "references" / "0001.jsonl")
    capsys.readouterr()
    assert main(["references", "show", str(run), "--task", rows[1]["task"]]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"task {rows[1]['task']} in step 1: 6 siblings, ")
    assert rows[1]["text"] in said
    assert said.count("\nattempt : ") == said.count(", advantage ") == 6
    assert "credit reference : ... end of reference .\n<|end|> <|assistant|>" in said


def refused(capsys: Capture, *typed: str) -> str:
    capsys.readouterr()
    assert main(["references", *typed]) == 2
    [said] = capsys.readouterr().err.splitlines()
    return said


def test_what_cannot_be_compared_is_refused_in_one_line(run: Path, tmp_path: Path, capsys: Capture):
    assert "nowhere: does not exist" in refused(capsys, "compare", "nowhere")
    assert f"{tmp_path}: is not a run's folder" in refused(capsys, "compare", str(tmp_path))
    assert "grpo reads no reference" in refused(capsys, "compare", str(run), "method={name: grpo}")
    assert "method.gama" in refused(capsys, "compare", str(run), "method.gama=1")
    assert "step 1 has no reference of 'moon'; expected one of train-" in refused(
        capsys, "show", str(run), "--task", "moon"
    )
    assert "no rollouts of step 9" in refused(capsys, "show", str(run), "--step", "9")
    drop_checksums(run)
    rollouts = run / "rollouts"
    kept = [*read_rows(rollouts / "0001.jsonl")]
    (rollouts / "0001.jsonl").write_bytes(b"".join(to_json_line({**row, "kept": False}) for row in kept))
    assert "no siblings of this run are mixed" in refused(capsys, "compare", str(run))
    rollouts.rename(run / "away")
    for verb in ("compare", "show"):
        assert "the run has no rollouts/" in refused(capsys, verb, str(run))
