"""Whole runs whose references a model writes, through the command line, against the loopback server."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import KINDS, Server
from sgcd.cli import main

KEY = "sk-test-0123456789abcdef"
RECIPE = Path(__file__).parents[2] / "recipes/lab/sgcd-llm.yaml"
LAB = ("siblings.groups=3", "evaluation.tasks=2", "evaluation.trials=0", "evaluation.every=99", "sampler.slots=48")
DESK = ("method={name: sgcd, k: 5, segments: {min_tokens: 4}}", "steps=2", "evaluation.every=9")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)


def writer(url: str, **more: Any) -> str:
    told = {"name": "llm", "base_url": url, "model": "m", "key_env": "WRITER_KEY", "pause": 0.01, "retries": 1}
    return "reference.writer=" + json.dumps({**told, "timeout": 20, **more})


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def policy(run: Path) -> bytes:
    return (run / "policy/model.safetensors").read_bytes()


def no_key(*places: Path, said: str = "") -> int:
    """How many files were searched and held no key."""
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file
    assert KEY not in said
    return len(files)


def test_check_names_what_would_be_called_and_calls_nobody(
    at_desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as server:
        told = (
            "check",
            "recipe.yaml",
            *DESK,
            writer(server.url, budget={"calls": 9, "money": 2.5}, prices={"answer": 1}),
        )
        assert main(told) == 0
        line = f"writer       m at {server.url}, key from WRITER_KEY, budget 9 calls, 2.5 money\n"
        assert line in capsys.readouterr().out
        monkeypatch.delenv("WRITER_KEY")
        assert main([*told, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["writer"].startswith(
            f"m at {server.url}, key from WRITER_KEY, which"
        )
        assert main(["train", *told[1:], "--run", "run"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("sgcd: reference.writer: the environment variable WRITER_KEY holds no key; set it")
        assert len(said.splitlines()) == 1
        assert not Path("run").exists()
        assert server.requests == 0


def test_the_key_itself_is_no_name_of_a_variable(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "recipe.yaml", *DESK, writer("http://127.0.0.1:9/v1", key_env=KEY)]) == 2
    said = capsys.readouterr().err
    assert "reference.writer.key_env: expected text that matches" in said
    assert KEY not in said


@pytest.mark.slow
def test_a_run_is_told_in_its_folder_and_repeated_without_a_call(
    at_desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server() as server:
        told = ("recipe.yaml", *DESK, writer(server.url, cache="answers.db", prices={"prompt": 1.0}))
        assert main(["train", *told, "--run", "first"]) == 0
        first = server.requests
        assert first >= 2 * len(rows(Path("first")))
        assert main(["train", *told, "--run", "again"]) == 0
        assert server.requests == first, "not a single call"
        assert main(["report", "first"]) == 0
    assert policy(Path("first")) == policy(Path("again"))
    for number in (1, 2):
        texts = [Path(run, f"references/000{number}.jsonl").read_text() for run in ("first", "again")]
        assert texts[0] == texts[1]
        row = rows(Path("first"))[number - 1]
        assert row["reference"]["written"] == row["reference"]["groups"] > 0
        assert row["endpoint"]["calls"] == row["endpoint"]["asked"] >= row["reference"]["groups"]
        again = rows(Path("again"))[number - 1]["endpoint"]
        assert (again["calls"], again["cached"], again["money"]) == (0, row["endpoint"]["asked"], 0)
    assert len(Path("first/calls.jsonl").read_text().splitlines()) == first
    card = Path("first/policy/README.md").read_text()
    assert "| references written by | m |" in card
    assert "Keep a person in charge" in card
    said = "".join(capsys.readouterr())
    assert f"{rows(Path('first'))[0]['endpoint']['calls']} calls for 0.00" in said
    page = Path("first/report.html").read_text()
    assert "writer: " in page and "answered from memory" in page
    assert no_key(at_desk, said=said) > 20


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_bit_and_knows_what_it_spent(
    at_desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server() as server:
        told = ("recipe.yaml", *DESK, writer(server.url, cache="answers.db"))
        assert main(["train", *told, "--run", "whole", "steps=3"]) == 0
        assert main(["train", *told, "--run", "part", "steps=2"]) == 0
        made = server.requests
        assert main(["train", "--run", "part", "--resume", "steps=3", "reference.writer.budget.calls=0"]) == 0
        assert server.requests == made
    assert policy(Path("whole")) == policy(Path("part"))
    capsys.readouterr()


@contextmanager
def watching(run: Path, do: Any) -> Iterator[None]:
    """Call `do` with the rows of metrics whenever there are more of them, beside whatever happens inside."""
    over = threading.Event()

    def watch() -> None:
        seen = 0
        while not over.wait(0.005):
            if len(now := rows(run)) > seen:
                seen = len(now)
                do(now)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lockstep", "continuous"])
def test_a_server_dies_in_mid_run_and_comes_back(mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    servers = [Server().__enter__()]
    port = servers[0].port

    def do(now: list[dict[str, Any]]) -> None:
        if len(now) == 1:
            servers[0].stop()
        elif now[-1]["reference"]["written"] == 0 and len(servers) == 1:
            servers.append(Server(port=port).__enter__())

    told = [
        str(RECIPE),
        *LAB,
        f"sampler.mode={mode}",
        "steps=6",
        writer(servers[0].url, cache=str(tmp_path / "answers.db")),
    ]
    with watching(run, do):
        assert main(["train", *told, "--run", str(run)]) == 0
    servers[-1].stop()
    found = rows(run)
    written = [row["reference"]["written"] for row in found]
    said = "".join(capfd.readouterr())
    with capfd.disabled():
        print(f"\n{mode}: groups with a reference in each step, the server dead in between: {written}")
    assert len(found) == 6
    assert len(servers) == 2
    dead = written.index(0)
    assert written[0] > 0
    assert written[-1] == found[-1]["reference"]["groups"] > 0, "references came back"
    row = found[dead]
    assert row["reference"]["causes"] == {"unanswered connection": row["reference"]["groups"]}
    assert not row["skipped"], "training went on"
    assert row["credit"]["weight"]["mean"] == 1.0
    assert row["endpoint"]["failures"]["connection"] >= 2 * row["reference"]["groups"]
    count = row["reference"]["groups"]
    assert f"{count} of {count} groups without a reference: unanswered connection" in said
    assert no_key(tmp_path, said=said) > 20


@pytest.mark.slow
def test_a_faultless_run_of_the_lab_repeated_makes_no_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Server() as server:
        told = [str(RECIPE), *LAB, "steps=3", writer(server.url, cache=str(tmp_path / "answers.db"))]
        assert main(["train", *told, "--run", str(tmp_path / "one")]) == 0
        made = server.requests
    assert main(["train", *told, "--run", str(tmp_path / "two")]) == 0
    calls = [sum(row["endpoint"]["calls"] for row in rows(tmp_path / name)) for name in ("one", "two")]
    said = "".join(capfd.readouterr())
    with capfd.disabled():
        print(f"\ncalls of the first run {calls[0]}, of the same run again, without a server, {calls[1]}")
    assert (calls[0], calls[1]) == (made, 0)
    assert made > 0
    assert policy(tmp_path / "one") == policy(tmp_path / "two")
    no_key(tmp_path, said=said)


@pytest.mark.slow
def test_a_run_lives_through_a_server_that_does_everything_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kinds = [kind for kind in KINDS if kind != "hang"]
    run = tmp_path / "run"
    with Server(lambda number, request: kinds[number % len(kinds)]) as server:
        told = [str(RECIPE), *LAB, "steps=4", writer(server.url)]
        assert main(["train", *told, "--run", str(run)]) == 0
    found = rows(run)
    kinds_told = Counter[str]()
    for row in found:
        kinds_told.update(row["endpoint"]["failures"])
    said = "".join(capfd.readouterr())
    with capfd.disabled():
        print(f"\n{server.requests} calls of four steps, failed: {dict(kinds_told.most_common())}")
    assert [row["step"] for row in found] == [1, 2, 3, 4]
    assert sum(row["endpoint"]["calls"] for row in found) == len((run / "calls.jsonl").read_text().splitlines())
    for row in found:
        assert row["reference"]["written"] + sum(row["reference"]["causes"].values()) == row["reference"]["groups"]
        assert row["credit"]["rollouts"] == 8 * row["kept"], "no rollout is lost"
    assert no_key(tmp_path, said=said) > 20
