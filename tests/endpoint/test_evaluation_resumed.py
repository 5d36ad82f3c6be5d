"""An evaluation that is stopped goes on by --resume: no trial is played twice, and all its cost is counted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import Server
from helpers.simulated_users import lab_agent
from sgcd.cli import main
from sgcd.measure.progress import EvaluationProgress
from sgcd.measure.trial_rows import select_evaluation, trial_key
from sgcd.storage.run_folder import RunFolder

LAB = str(Path(__file__).parents[2] / "recipes/lab/grpo.yaml")
FEW = ("--tasks", "6", "--trials", "2")
NUM_REQUESTS = 27
"""Of a whole evaluation of so few trials."""
Capture = pytest.CaptureFixture[str]


def model(url: str, **more: Any) -> str:
    told = {"base_url": url, "model": "clerk", "pause": 0.001, "retries": 0, "timeout": 120, "concurrency": 2}
    return "evaluation.model=" + json.dumps({**told, **more})


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rows_of(run: str) -> list[dict[str, Any]]:
    """The rows without what binds them to their file."""
    return [{name: value for name, value in row.items() if name != "check"} for row in lines(f"{run}/evaluation.jsonl")]


def first_requests(server: Server) -> Counter[tuple[int, float]]:
    """How often each trial was begun: its seed and temperature, counted over requests without an answer so far."""
    bodies = [json.loads(body) for body in server.bodies]
    return Counter((body["seed"], body["temperature"]) for body in bodies if len(body["messages"]) == 2)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Ctrl-C when so many pieces of an evaluation are on disk; 0: never again."""
    add, left = EvaluationProgress.add, [0]

    def added(self: EvaluationProgress, played: Any) -> None:
        add(self, played)
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EvaluationProgress, "add", added)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    yield lambda count: left.__setitem__(0, count)
    signal.signal(signal.SIGINT, handler)


def test_a_stopped_evaluation_of_a_model_goes_on_and_asks_for_no_trial_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, stop_after: Callable[[int], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    prices = {"prompt": 2.0, "answer": 10.0}
    with Server(lab_agent) as server:
        typed = (LAB, model(server.url, prices=prices), *FEW)
        assert main(["evaluate", *typed, "--run", "whole", "--json"]) == 0
        whole = json.loads(capsys.readouterr().out)
        num_calls = server.requests
        assert num_calls == NUM_REQUESTS
    with Server(lab_agent) as server:
        stop_after(7)
        typed = (LAB, model(server.url, prices=prices), *FEW)
        assert main(["evaluate", *typed, "--run", "stopped"]) == 130
        assert "stopped; to go on: sgcd evaluate stopped --resume" in capsys.readouterr().err
        done = [line["row"] for line in lines("stopped/talks.jsonl")]
        assert 7 <= len(done) <= 8, "another one may end at the same moment"
        assert not Path("stopped/evaluation.jsonl").exists()
        assert main(["compare", "stopped", "--against", "whole"]) == 2
        assert "unfinished; go on with it: sgcd evaluate stopped --resume" in capsys.readouterr().err
        before = server.requests
    with Server(lab_agent) as server:
        stop_after(0)
        elsewhere = f"evaluation.model.base_url={server.url}"
        assert main(["evaluate", "stopped", elsewhere, "--resume", "--json"]) == 0
        assert sum(first_requests(server).values()) == 18 - len(done)
        assert set(first_requests(server).values()) == {1}
        resumed = json.loads(capsys.readouterr().out)
        after = server.requests
        assert main(["evaluate", "stopped", elsewhere, "--resume", "--json"]) == 0, "nothing is left to play"
        assert server.requests == after
        assert json.loads(capsys.readouterr().out)["modes"] == resumed["modes"]
    assert rows_of("stopped") == rows_of("whole")
    assert resumed["modes"] == whole["modes"]
    assert sorted(json.dumps(line["messages"]) for line in lines("stopped/talks.jsonl")) == sorted(
        json.dumps(line["messages"]) for line in lines("whole/talks.jsonl")
    )
    expected = {"calls": num_calls, "tokens_in": 50 * num_calls, "tokens_out": 10 * num_calls}
    money = num_calls * (50 * 2 + 10 * 10) / 1e6
    assert whole["cost"] | {"trials": 18, "successes": 18, "money": pytest.approx(money)} == whole["cost"]
    assert whole["cost"]["players"]["model"] | expected == whole["cost"]["players"]["model"]
    assert whole["cost"]["money_per_success"] == pytest.approx(money / 18)
    # A call that was under way at the stop is paid for, too.
    assert resumed["cost"]["players"]["model"]["calls"] == before + after >= num_calls


def test_trials_that_broke_are_played_again_and_no_other_key_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)

    def dying(number: int, request: dict[str, Any]) -> str:
        return lab_agent(number, request) if number < 12 else "reset"

    with Server(dying) as server:
        assert main(["evaluate", LAB, model(server.url, concurrency=1), *FEW, "--run", "A"]) == 0
    said = capsys.readouterr().out
    broken = [row for row in lines("A/evaluation.jsonl") if row["broken"]]
    assert 0 < len(broken) < 18
    assert (
        f"broke and count in no rate ({len([row for row in broken if row['mode'] == 'sampled'])} by the model)" in said
    )
    with Server(lab_agent) as server:
        elsewhere = f"evaluation.model.base_url={server.url}"
        for word, key in {"evaluation.model.model=other": "evaluation.model.model", "seed=9": "seed"}.items():
            assert main(["evaluate", "A", elsewhere, word, "--resume"]) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert f"A: the evaluation was begun with another {key}; only the connection" in line
        assert main(["evaluate", "A", "--resume", "--trials", "9"]) == 2
        assert "another evaluation.trials" in capsys.readouterr().err
        assert main(["evaluate", "A", elsewhere, "--resume", "--run", "B"]) == 2
        assert "leave out B" in capsys.readouterr().err
        assert server.requests == 0
        assert main(["evaluate", "A", elsewhere, "--resume", "--json"]) == 0
        assert sum(first_requests(server).values()) == len(broken)
    found = json.loads(capsys.readouterr().out)["modes"]
    assert [found[mode]["broken"] for mode in found] == [{"trials": 0, "sources": {}, "causes": {}}] * 2
    assert [found[mode]["overall"]["value"] for mode in found] == [1.0, 1.0]


def test_a_policys_evaluation_has_a_folder_of_its_own_and_goes_on_to_the_same_rows(
    at_desk: Path, capsys: Capture, stop_after: Callable[[int], None]
) -> None:
    typed = ["evaluate", "policy", "sampler.slots=4", "--recipe", "recipe.yaml", "--trials", "2"]
    assert main([*typed, "--run", "whole", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    rows = rows_of("whole")
    assert cost["players"]["policy"] == {
        "tokens_in": sum(row["tokens_read"] for row in rows),
        "tokens_out": sum(row["tokens"] for row in rows),
    }
    assert (cost["trials"], cost["money"]) == (18, None) and cost["seconds"] > 0
    stop_after(2)
    assert main([*typed, "--run", "stopped"]) == 130
    assert len(lines("stopped/talks.jsonl")) == 6, "two cohorts: six greedy trials by four slots"
    stop_after(0)
    assert main(["evaluate", "stopped", "--resume"]) == 0
    assert "cost: 18 trials in " in capsys.readouterr().out
    assert rows_of("stopped") == rows
    assert main(["compare", "stopped", "--against", "whole"]) == 0
    assert main(["report", "whole"]) == 0
    assert main(["check", "stopped"]) == 0
    assert main(["train", "--run", "stopped", "--resume"]) == 2
    assert "holds the evaluation of a model, and no run that was trained" in capsys.readouterr().err


def test_a_runs_evaluation_joins_the_run_only_when_it_is_whole(
    at_desk: Path, capsys: Capture, stop_after: Callable[[int], None]
) -> None:
    assert main(["train", "recipe.yaml", "steps=1", "sampler.slots=4", "--run", "A"]) == 0
    before = rows_of("A")
    assert main(["evaluate", "A", "--resume"]) == 2
    assert "no evaluation was stopped here; leave out --resume" in capsys.readouterr().err
    stop_after(2)
    assert main(["evaluate", "A", "--trials", "3"]) == 130
    assert "stopped; to go on: sgcd evaluate A --resume" in capsys.readouterr().err
    assert rows_of("A") == before
    assert main(["check", "A"]) == 0
    assert main(["evaluate", "A", "--resume", "--trials", "4"]) == 2
    assert "goes on as the evaluation began; leave out evaluation.trials=4" in capsys.readouterr().err
    stop_after(0)
    assert main(["evaluate", "A", "--resume"]) == 0
    assert not Path("A/unfinished.jsonl").exists()
    resumed = select_evaluation(rows_of("A"), "dev", 1)
    assert len(rows_of("A")) - len(before) == 6, "the third trials; training had played the others"
    assert main(["evaluate", "A", "--trials", "3"]) == 0
    whole = rows_of("A")[-24:]
    assert {trial_key(row): row for row in whole} == {trial_key(row): row for row in resumed}


@pytest.mark.slow
@pytest.mark.parametrize("instant", [0.3, 0.8])
def test_killed_at_any_instant_it_goes_on_and_asks_for_no_finished_trial_again(instant: float, tmp_path: Path) -> None:
    """SIGKILL when a share of the requests has come."""
    command = [sys.executable, "-m", "sgcd", "evaluate"]
    with Server(lab_agent) as server:
        server.wait = 0.02
        typed = [LAB, model(server.url, concurrency=4), *FEW, "--run", str(tmp_path / "A")]
        process = subprocess.Popen([*command, *typed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while server.requests < NUM_REQUESTS * instant:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        folder = tmp_path / "A"
        num_finished = len(RunFolder.open(folder).row_files.read("talks.jsonl"))  # a row half on disk counts as none
        begun = server.requests
        again = subprocess.run(
            [*command, str(folder), "--resume", "--json"], capture_output=True, text=True, env={**os.environ}
        )
        assert again.returncode == 0, again.stderr
        bodies = [json.loads(body) for body in server.bodies[begun:]]
    found = json.loads(again.stdout)
    assert [found["modes"][mode]["overall"]["trials"] for mode in found["modes"]] == [6, 12]
    assert [found["modes"][mode]["overall"]["value"] for mode in found["modes"]] == [1.0, 1.0]
    assert sum(len(body["messages"]) == 2 for body in bodies) == 18 - num_finished
    assert found["cost"]["players"]["model"]["calls"] >= begun - 4 + len(bodies)
