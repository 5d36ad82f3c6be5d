"""Whole runs with a simulated user, through the command line, against the loopback server."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import Server
from helpers.simulated_users import DOOR, says, wants, word_seeking_user
from sgcd.act.user import END_MARK
from sgcd.cli import main

KEY = "sk-test-0123456789abcdef"
KEYS = ("environment.class=door:Door", "environment.system=please be kind", "evaluation.every=2", "evaluation.trials=1",
        "siblings.limits={turns: 3, tokens: 64}", "steps=2", "optimizer.lr=0.01")  # fmt: skip


@pytest.fixture(autouse=True)
def _door(at_desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_KEY", KEY)
    (at_desk / "door.py").write_text(DOOR)
    for split, count in (("train", 12), ("dev", 4)):
        rows = [
            {
                "id": f"{split}-{i}",
                "word": word,
                "verifier": "door:heard",
                "user": f"You are mia. You want to hear {word}",
            }
            for i in range(count)
            for word in [("yes", "no")[i % 2]]
        ]
        (at_desk / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def user(url: str, **more: Any) -> str:
    told = {"base_url": url, "model": "u", "key_env": "USER_KEY", "pause": 0.001, "retries": 1, "timeout": 20}
    return "environment.user=" + json.dumps({**told, **more})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(run: Path) -> dict[str, bytes]:
    """What a run played and what came of it, to the byte."""
    kept = [*run.glob("rollouts/*"), *run.glob("credit/*"), run / "evaluation.jsonl", run / "policy/model.safetensors"]
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(kept)}


def messages(run: Path, step: int = 1) -> list[list[dict[str, Any]]]:
    found = [row for row in lines(run / f"rollouts/{step:04d}.jsonl") if "messages" in json.dumps(row)]
    return [rollout["messages"] for row in found for rollout in row.get("rollouts", [row]) if "messages" in rollout]


def no_key(place: Path, said: str) -> int:
    files = [file for file in place.rglob("*") if file.is_file()]
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    assert KEY not in said
    return len(files)


def test_check_names_the_user_and_calls_nobody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(word_seeking_user) as server:
        told = ("recipe.yaml", *KEYS, user(server.url, budget={"calls": 9}))
        assert main(["check", *told]) == 0
        said = capsys.readouterr().out
        assert f"user         u at {server.url}, key from USER_KEY, budget 9 calls\n" in said
        assert "; the user was not asked" in said
        monkeypatch.delenv("USER_KEY")
        assert main(["check", *told, "--json"]) == 0
        assert "key from USER_KEY, which is NOT SET" in json.loads(capsys.readouterr().out)["user"]
        assert main(["train", *told, "--run", "run"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("sgcd: environment.user: the environment variable USER_KEY holds no key; set it")
        assert not Path("run").exists()
        assert server.requests == 0


@pytest.mark.slow
def test_a_run_talks_to_its_users_and_repeated_asks_nothing(at_desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(word_seeking_user) as server:
        told = ("recipe.yaml", *KEYS, user(server.url, cache="answers.db", prices={"prompt": 2.0}))
        assert main(["train", *told, "--run", "first"]) == 0
        made = server.requests
        assert made > 40
        heard = [json.loads(body) for body in server.bodies]
    assert main(["train", *told, "--run", "again"]) == 0, "the server is gone, and nobody misses it"
    assert records(Path("first")) == records(Path("again"))
    rows, again = lines(Path("first/metrics.jsonl")), lines(Path("again/metrics.jsonl"))
    assert {row["broken"] for row in rows} == {0}
    assert any(row["mixed"] for row in rows)
    assert sum(row["user"]["calls"] for row in rows) == made == len(lines(Path("first/user-calls.jsonl")))
    assert [row["user"]["calls"] for row in again] == [0, 0]
    assert [row["user"]["asked"] for row in again] == [row["user"]["asked"] for row in rows]
    assert rows[0]["user"]["money"] > 0 == again[0]["user"]["money"]
    assert "endpoint" not in rows[0], "there is no writer"
    # each rollout has a user of its own
    first_words = [body["seed"] for body in heard if len(body["messages"]) == 2]
    assert len(set(first_words)) == len(first_words) >= 16
    # what the user said stands in the rollouts, and who it was beside them
    talks = messages(Path("first"))
    assert talks
    assert all(talk[1]["role"] == "user" and talk[1]["content"].startswith("please say") for talk in talks)
    assert any(talk[-1] == {"role": "user", "content": "thank you"} for talk in talks)
    assert END_MARK not in json.dumps(talks)
    assert "You want to hear" not in json.dumps(talks)
    assert json.loads(Path("first/facts.json").read_text())["user"] == {"model": "u"}
    assert "| users played by | u |" in Path("first/policy/README.md").read_text()
    said = "".join(capsys.readouterr())
    told = rows[0]["user"]
    assert f"{told['calls']} calls of the user and {told['cached']} remembered for {told['money']:.4f}" in said
    assert main(["report", "first"]) == 0
    page = Path("first/report.html").read_text()
    assert "please say" in page and "user: " in page and "thank you" in page
    assert no_key(at_desk, said) > 30


@pytest.mark.slow
def test_by_which_way_a_user_is_reached_may_change_and_who_it_is_may_not(capsys: pytest.CaptureFixture[str]) -> None:
    with Server(word_seeking_user) as server:
        told = ("recipe.yaml", *KEYS, user(server.url))
        assert main(["train", *told, "--run", "run", "steps=1"]) == 0
        assert main(["train", "--run", "run", "--resume", "environment.user.model=v"]) == 2
        assert "environment.user.model=v cannot be resumed" in capsys.readouterr().err
        ways = ("environment.user.timeout=9", "environment.user.budget.calls=9999", "evaluation.model={base_url: "
                "http://127.0.0.1:9/v1, model: x}")  # fmt: skip
        assert main(["train", "--run", "run", "--resume", "steps=2", *ways]) == 0
        assert main(["train", "--run", "run", "--resume", "evaluation.model.model=y", "steps=2"]) == 0


def test_without_its_server_every_rollout_is_broken_and_the_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    told = ("recipe.yaml", *KEYS, user("http://127.0.0.1:9/v1", retries=0), "siblings.rounds=1", "evaluation.tasks=1")
    assert main(["train", *told, "--run", "run"]) == 1
    rows = lines(Path("run/metrics.jsonl"))
    cause = "user: connection: the server could not be reached, or hung up"
    assert [row["causes"] for row in rows] == [{cause: row["rollouts"]} for row in rows]
    assert [row["skipped"] for row in rows] == ["no mixed group"] * 2
    assert {row["broken"] for row in lines(Path("run/evaluation.jsonl"))} == {cause}
    said = "".join(capsys.readouterr())
    assert "step skipped: no mixed group" in said
    num_rollouts = sum(row["rollouts"] for row in rows)
    assert said.splitlines()[-1] == (
        f"sgcd: run: {num_rollouts} of {num_rollouts} rollouts broke, {num_rollouts} of them by user: connection; the "
        f"first text: {cause}; mend that; the run can go on: sgcd train --run run --resume steps=N"
    )
    assert f"{rows[0]['broken']} of {rows[0]['rollouts']} rollouts broken: {cause}" in said
    assert f"{rows[0]['user']['calls']} of {rows[0]['user']['calls']} calls of the user failed: connection" in said


@pytest.mark.slow
def test_a_server_that_fails_at_times_breaks_those_rollouts_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    failing = {0: "reset", 1: "broken", 2: "hang"}

    def plan(number: int, request: dict[str, Any]) -> str:
        return failing.get(request["seed"] % 8) or word_seeking_user(number, request)

    with Server(plan) as server:
        told = ("recipe.yaml", *KEYS, user(server.url, retries=0, timeout=0.4))
        assert main(["train", *told, "--run", "run"]) == 0
    rows = lines(Path("run/metrics.jsonl"))
    kinds = {cause.split(": ")[1] for row in rows for cause in row["causes"]}
    assert kinds == {"connection", "server", "timeout"}
    assert all(0 < row["broken"] < row["rollouts"] for row in rows)
    trials = sum(bool(row["broken"]) for row in lines(Path("run/evaluation.jsonl")))
    unanswered = sum(sum(row["user"]["unanswered"].values()) for row in rows)
    assert sum(row["broken"] for row in rows) + trials == unanswered, "one for each, and no other"
    assert any(not row["skipped"] for row in rows), "training went on"
    capsys.readouterr()


def test_a_spent_budget_breaks_what_comes_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Server(word_seeking_user) as server:
        told = ("recipe.yaml", *KEYS, user(server.url, budget={"calls": 20}), "steps=1", "siblings.rounds=1")
        assert main(["train", *told, "--run", "run", "evaluation.tasks=1"]) == 1, "most rollouts broke"
        assert server.requests == 20
    assert "broken: user: budget: 20 calls were made, budget.calls is 20" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_policy_is_evaluated_with_users(capsys: pytest.CaptureFixture[str]) -> None:
    with Server(word_seeking_user) as server:
        assert main(["train", "recipe.yaml", *KEYS, user(server.url), "--run", "run", "steps=1"]) == 0
        capsys.readouterr()
        assert main(["evaluate", "run", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
    assert told["endpoints"]["user"]["calls"] > 4
    assert told["modes"]["greedy"]["broken"]["trials"] == 0


@pytest.mark.parametrize(
    ("row", "keys", "words"),
    [
        ({"user": ""}, True, "line 1: user must be a text that says who the simulated user is and wants, got ''"),
        ({"user": ["a"]}, True, "line 1: user must be a text that says who the simulated user is and wants, got ['a']"),
        ({}, True, "line 1: user must be a text that says who the simulated user is and wants, got None"),
        ({"user": "mia"}, False, "line 1: the row says who the user is, and no model plays it; set environment.user"),
    ],
)
def test_rows_and_recipe_agree_on_whether_there_is_a_user(
    row: dict[str, Any], keys: bool, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("train.jsonl").write_text(json.dumps({"id": "a", "word": "yes", "verifier": "door:heard", **row}) + "\n")
    told = [user("http://127.0.0.1:9/v1")] if keys else []
    assert main(["check", "recipe.yaml", *KEYS, *told]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("environment.user={model: m}", "environment.user.base_url: missing; expected text that matches"),
        (f"environment.user={{base_url: 'http://x/v1', model: m, key_env: {KEY}}}", "got something else"),
        ("environment.user=3", "environment.user: expected a mapping with the keys base_url, model"),
        ("environment.user.modell=m", "environment.user.modell: no such key; did you mean environment.user.model?"),
    ],
)
def test_a_user_that_is_no_endpoint_is_refused_in_a_line(
    typed: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "recipe.yaml", *KEYS, typed]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert KEY not in line


def test_the_scripts_agree_on_what_the_user_wants() -> None:
    request = {"messages": [{"content": "... You want to hear yes\n\nHow you talk"}]}
    assert wants(request) == "yes"
    assert json.loads(says("a")) == {"content": "a"}
