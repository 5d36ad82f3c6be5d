"""Held-out tasks of a recipe with a chat model that is no policy, through the command line, on loopback."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.misbehaving import KINDS, Server
from helpers.simulated_users import DOOR, Plan, calls, lab_agent, says, toolless_agent, word_seeking_user
from sgcd.cli import main
from sgcd.endpoint.client import Endpoint
from sgcd.lab import words
from sgcd.lab.tasks import generate_tasks

KEY = "sk-test-0123456789abcdef"
LAB = Path(__file__).parents[2] / "recipes/lab/grpo.yaml"
FEW = ("--tasks", "12", "--trials", "2")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_KEY", KEY)


def model(url: str, **more: Any) -> str:
    told = {"base_url": url, "model": "clerk", "key_env": "MODEL_KEY", "pause": 0.001, "retries": 1, "timeout": 10}
    return "evaluation.model=" + json.dumps({**told, **more})


def evaluated(capture: Capture, plan: Plan, *typed: str, **more: Any) -> tuple[dict[str, Any], Server]:
    """The answer in JSON, and the server that was asked."""
    with Server(plan) as server:
        capture.readouterr()
        code = main(["evaluate", str(LAB), model(server.url, **more), "--json", *(typed or FEW)])
        said = capture.readouterr()
        told = json.loads(said.out)
        all_broke = not any(mode["overall"]["trials"] for mode in told["modes"].values())
        assert code == all_broke
        assert all_broke == ("trials of dev tasks broke, " in said.err) == bool(told["no_result"])
        return told, server


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_model_that_knows_the_lab_solves_it_by_its_own_calls(capsys: Capture) -> None:
    told, server = evaluated(capsys, lab_agent)
    assert set(told["modes"]) == {"greedy", "sampled"}
    for mode, trials in (("greedy", 12), ("sampled", 24)):
        assert told["modes"][mode]["overall"] | {"value": 1.0, "trials": trials} == told["modes"][mode]["overall"]
        assert told["modes"][mode]["endings"] == {"answered": trials}
        assert told["modes"][mode]["calls_in_error"] == 0
    assert {name for name, part in told["modes"]["greedy"]["categories"].items() if part["tasks"]} == {
        "action", "information", "transfer", "no_action",
    }  # fmt: skip
    assert (told["model"], told["split"], told["invalid"]) == ("clerk", "dev", [])
    assert told["endpoints"]["model"]["calls"] == server.requests == told["endpoints"]["model"]["asked"]
    heard = [json.loads(body) for body in server.bodies]
    assert {request["temperature"] for request in heard} == {0.0, 1.0}
    assert {len(request["tools"]) for request in heard} == {len(words.TOOLS)}
    assert {request["max_completion_tokens"] for request in heard} == {224, 214}  # what is left of the limit
    first = [request for request in heard if len(request["messages"]) == 2]
    assert len({request["seed"] for request in first}) == 24, "a greedy trial has the seed of its first sampled one"
    answer = next(request["messages"] for request in heard if len(request["messages"]) == 4)
    assert [message["role"] for message in answer] == ["system", "user", "assistant", "tool"]
    assert answer[3]["tool_call_id"] == answer[2]["tool_calls"][0]["id"] == "c0"
    assert answer[3]["content"].startswith("done ")


def test_a_babbler_solves_nothing(capsys: Capture) -> None:
    told, _ = evaluated(capsys, toolless_agent)
    assert told["modes"]["greedy"]["overall"]["value"] == 0.0
    assert told["modes"]["sampled"]["overall"]["value"] == 0.0
    assert told["modes"]["sampled"]["mean_tokens"] == 10


def test_it_reads_like_a_policys_evaluation(capsys: Capture) -> None:
    with Server(lab_agent) as server:
        told = (str(LAB), model(server.url, prices={"prompt": 2.0}), *FEW)
        assert main(["evaluate", *told]) == 0
    said = capsys.readouterr()
    assert "dev tasks played with clerk" in said.out
    assert "1.000 [.758, 1.000] 12 of 12" in " ".join(said.out.split())
    assert "model: " in said.out and f"{server.requests} calls, 0 of them repetitions" in said.out
    assert "0.0" in said.out.split(" spent")[0].split()[-1]
    assert f"playing 36 trials of dev tasks with clerk at {server.url}, key from MODEL_KEY" in said.err
    assert KEY not in said.out + said.err


def test_repeated_it_is_free_and_the_same(capsys: Capture) -> None:
    first, server = evaluated(capsys, lab_agent, cache="answers.db")
    made = server.requests
    with Server(lambda number, request: "broken", port=server.port) as dead:
        assert main(["evaluate", str(LAB), model(dead.url, cache="answers.db"), "--json", *FEW]) == 0
        assert dead.requests == 0
    again = json.loads(capsys.readouterr().out)
    assert again["modes"] == first["modes"]
    asked = again["endpoints"]["model"]
    assert (asked["calls"], asked["cached"]) == (0, made)


def test_a_folder_keeps_it_for_comparisons(capsys: Capture, tmp_path: Path) -> None:
    evaluated(capsys, lab_agent, *FEW, "--run", "good")
    evaluated(capsys, toolless_agent, *FEW, "--run", "bad")
    rows = lines(Path("good/evaluation.jsonl"))
    assert len(rows) == 36
    assert {row["model"] for row in rows} == {"clerk"}
    talks = lines(Path("bad/talks.jsonl"))
    assert talks[0]["messages"][-1] == {"role": "assistant", "content": "what a lovely day"}
    assert main(["compare", "good", "--against", "bad", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["modes"]["greedy"]["overall"]["difference"]["value"] == 1.0
    assert main(["report", "good"]) == 0
    assert main(["train", "--run", "good", "--resume"]) == 2
    assert "holds the evaluation of a model, and no run that was trained" in capsys.readouterr().err
    damaged = Path("good/evaluation.jsonl").read_text().replace("clerk", "clark", 1)
    Path("good/evaluation.jsonl").write_text(damaged)
    assert main(["train", "--run", "good", "--resume", "--fall-back"]) == 2
    assert Path("good/evaluation.jsonl").read_text() == damaged
    Path("good/evaluation.jsonl").write_text(damaged.replace("clark", "clerk"))
    assert main(["evaluate", str(LAB), model("http://127.0.0.1:9/v1"), "--run", "good"]) == 2
    assert "not empty; choose another one" in capsys.readouterr().err
    assert main(["evaluate", "good"]) == 2
    assert "holds the evaluation of a model, not a run" in capsys.readouterr().err
    assert len(lines(Path("good/model-calls.jsonl"))) > 36
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 8
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("plan", "causes"),
    [
        (lambda number, request: "reset", "model: connection: the server could not be reached, or hung up, 2 times"),
        (lambda number, request: "forbidden", "model: refused: status 401, it does not accept the key"),
        (lambda number, request: "limit", "model: rate limit: too many calls, 2 times"),
        (lambda number, request: "key", "model: key: the answer quotes the key"),
        (lambda n, r: calls(("find_user", {"name": KEY})), "model: key: the answer quotes the key"),
        (lambda n, r: calls((KEY, {})), "model: key: the answer quotes the key"),
    ],
)
def test_a_model_that_cannot_be_asked_breaks_trials_by_kind(plan: Plan, causes: str, capsys: Capture) -> None:
    told, _ = evaluated(capsys, plan, "--tasks", "2", "--trials", "0")
    assert told["modes"]["greedy"]["broken"] == {"trials": 2, "sources": {"model": 2}, "causes": {causes: 2}}
    assert told["modes"]["greedy"]["overall"]["value"] is None
    assert told["endpoints"]["model"]["unanswered"] == {causes.split(": ")[1]: 2}


COUNTED = {
    "connection": ("reset", "nobody", "half header"),
    "cut": ("cut", "cut chunk"),
    "rate limit": ("limit", "limit now"),
    "server": ("broken",),
    "unreadable": ("not json", "not a completion"),
    "huge": ("huge body",),
    "refused": ("unknown", "forbidden"),
    "key": ("key",),
    "timeout": ("hang",),
}


@pytest.mark.slow
def test_a_server_that_does_everything_wrong_is_counted_to_the_call(capfd: pytest.CaptureFixture[str]) -> None:
    kinds = [kind for kind in KINDS if kind != "good"]

    def plan(number: int, request: dict[str, Any]) -> str:
        return kinds[number // 3 % len(kinds)] if number % 3 == 0 else lab_agent(number, request)

    with Server(plan) as server:
        typed = (model(server.url, retries=0, timeout=3, concurrency=32), "--tasks", "200", "--trials", "3", "--json")
        assert main(["evaluate", str(LAB), *typed]) == 0
        done = dict(server.done)
    found = json.loads(capfd.readouterr().out)
    asked = found["endpoints"]["model"]
    expected = {kind: sum(done.get(each, 0) for each in each_of) for kind, each_of in COUNTED.items()}
    with capfd.disabled():
        print(f"\n{server.requests} calls of 800 trials, failed: {asked['failures']}")
    assert asked["failures"] == asked["unanswered"] == expected
    broken = {mode: found["modes"][mode]["broken"] for mode in found["modes"]}
    assert sum(told["trials"] for told in broken.values()) == sum(expected.values()), "one trial each, and no other"
    assert asked["calls"] == server.requests


def test_an_evaluation_of_which_all_broke_leaves_its_folder_free(capsys: Capture) -> None:
    typed = [str(LAB), model("http://127.0.0.1:9/v1", retries=0), "--tasks", "1", "--trials", "0", "--run", "run"]
    for _ in range(2):
        assert main(["evaluate", *typed]) == 1
        assert "sgcd: evaluation: all 1 trials of dev tasks broke, " in capsys.readouterr().err
        assert not Path("run").exists()


def played(capture: Capture, *answers: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """One task: the row, what was said, what the server heard."""

    def plan(number: int, request: dict[str, Any]) -> str:
        return answers[min(number, len(answers) - 1)]

    run = f"run-{len(list(Path().iterdir()))}"
    _, server = evaluated(capture, plan, "--tasks", "1", "--trials", "0", "--run", run)
    [row], [talk] = lines(Path(run, "evaluation.jsonl")), lines(Path(run, "talks.jsonl"))
    return row, talk["messages"], [json.loads(body) for body in server.bodies]


@pytest.mark.parametrize(
    ("answer", "malformed", "failed", "heard"),
    [
        (calls(("find_user", '{"name": "mia"')), 1, 0, "error : the call"),
        (calls(("find_user", "[1]")), 1, 0, "error : the arguments of find_user must be a JSON object, they are '[1]'"),
        (calls(("find_usr", {"name": "mia"})), 1, 1, "error : unknown tool find_usr"),
        (calls(("", {})), 1, 0, "error : the call names no tool"),
        (calls(("find_user", {"nme": "mia"})), 0, 1, "error : find_user needs name"),
        (calls(("transfer_to_human", "")), 0, 0, "done transferred"),
    ],
)
def test_a_call_that_cannot_be_read_is_malformed_as_for_a_policy(
    answer: str, malformed: int, failed: int, heard: str, capsys: Capture
) -> None:
    row, talk, asked = played(capsys, answer, says(words.REFUSAL))
    assert (row["malformed"], row["failed_calls"], row["broken"], row["turns"]) == (malformed, failed, "", 2)
    assert talk[3]["role"] == "tool" and talk[3]["content"].startswith(heard)
    back = asked[1]["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert isinstance(json.loads(back), dict), "servers choke on anything else"


def test_every_call_of_a_turn_has_an_answer_of_its_own(capsys: Capture) -> None:
    both = calls(("find_user", {"name": "nobody"}), ("transfer_to_human", {}), text="one moment please")
    _, talk, _ = played(capsys, both, says(words.HANDOVER))
    assert [(m["tool_call_id"], m["content"]) for m in talk if m["role"] == "tool"] == [
        ("c0", "error : no such customer"),
        ("c1", "done transferred"),
    ]
    assert talk[2]["content"] == "one moment please"
    spoilt = calls(("find_user", {"name": "mia"}), ("transfer_to_human", "{"))
    row, talk, _ = played(capsys, spoilt, says(words.REFUSAL))
    answers = [(m["tool_call_id"], m["content"][:7]) for m in talk if m["role"] == "tool"]
    assert answers == [("c0", "error :"), ("c1", "error :")]
    assert (row["malformed"], row["calls"]) == (1, 0), "a turn is refused whole"


def test_odd_answers_end_a_trial_as_a_policys_would(capsys: Capture) -> None:
    row, *_ = played(capsys, says("your call", finish="length"))
    assert (row["ending"], row["success"], row["broken"]) == ("token_limit", False, "")
    cut = json.dumps({**json.loads(calls(("find_user", {"name": "mia"}))), "finish": "length"})
    row, *_ = played(capsys, cut)
    assert (row["ending"], row["calls"], row["malformed"]) == ("token_limit", 0, 0), "what was cut off is not done"
    row, *_ = played(capsys, says(""))
    assert (row["ending"], row["success"], row["broken"]) == ("answered", False, "")
    row, talk, _ = played(capsys, json.dumps({"content": None, "refusal": "i would rather not"}))
    assert (row["ending"], row["success"], talk[-1]["content"]) == ("answered", False, "i would rather not")
    row, *_ = played(capsys, calls(("find_user", {"name": "mia"})))
    assert (row["ending"], row["turns"], row["looping"]) == ("turn_limit", 8, True)


def test_what_it_writes_is_limited_as_its_server_counts(capsys: Capture) -> None:
    with Server(lambda n, r: calls(("find_user", {"name": "mia"}))) as server:
        told = (str(LAB), model(server.url), "siblings.limits.tokens=45", "--tasks", "1", "--trials", "0")
        assert main(["evaluate", *told, "--run", "run"]) == 0
        assert [json.loads(body)["max_completion_tokens"] for body in server.bodies] == [45, 35, 25]
    [row] = lines(Path("run/evaluation.jsonl"))
    assert (row["ending"], row["turns"], row["tokens"]) == ("token_limit", 3, 30)


def test_a_server_that_knows_no_temperature_is_told_none(capsys: Capture) -> None:
    _, server = evaluated(capsys, lab_agent, *FEW, temperature=None)
    assert not [body for body in server.bodies if "temperature" in body]


def test_an_own_environment_with_a_user_is_played_too(at_desk: Path, capsys: Capture) -> None:
    (at_desk / "door.py").write_text(DOOR)
    rows = [
        {"word": "yes", "verifier": "door:heard", "user": f"You are mia {n}. You want to hear yes"} for n in range(4)
    ]
    (at_desk / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (at_desk / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")

    def plan(number: int, request: dict[str, Any]) -> str:
        if request["model"] == "u":
            return word_seeking_user(number, request)
        said = [message for message in request["messages"] if message["role"] == "user"]
        return says("yes") if len(said) > 1 else calls(("find_user", {"name": "mia"})) if len(
            request["messages"]) == 2 else says("who are you")  # fmt: skip

    keys = (
        "environment.class=door:Door",
        "environment.system=please be kind",
        "siblings.limits={turns: 5, tokens: 200}",
    )

    def user(**more: Any) -> str:
        return "environment.user=" + json.dumps({"base_url": server.url, "model": "u", **more})

    with Server(plan) as server:
        told = ("recipe.yaml", *keys, model(server.url))
        assert main(["evaluate", *told, user(), "--json", "--run", "one"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert main(["evaluate", *told, user(timeout=9, cache="a.db", prices={"prompt": 1}), "--run", "other way"]) == 0
        assert main(["evaluate", *told, user(temperature=0), "--run", "other user"]) == 0
    assert found["modes"]["greedy"]["overall"]["value"] == 1.0
    assert set(found["endpoints"]) == {"model", "user"}
    assert found["endpoints"]["user"]["calls"] > 0
    assert main(["compare", "one", "--against", "other way"]) == 0
    capsys.readouterr()
    assert main(["compare", "one", "--against", "other user"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "environment.user.temperature is 1.0 against 0.0" in line


def test_a_model_is_compared_with_a_trained_policy(at_desk: Path, capsys: Capture) -> None:
    def plan(number: int, request: dict[str, Any]) -> str:
        return says(request["messages"][-1]["content"].removeprefix("please say "))

    with Server(plan) as server:
        assert main(["train", "recipe.yaml", "steps=1", "--run", "trained"]) == 0
        assert main(["evaluate", "recipe.yaml", model(server.url), "--run", "asked"]) == 0
    capsys.readouterr()
    assert main(["compare", "asked", "--against", "trained", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["matched_by_seed"]
    assert compared["modes"]["greedy"]["overall"]["a"] == 1.0
    assert compared["modes"]["sampled"]["overall"]["difference"]["value"] > 0


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([str(LAB)], "evaluation.model: missing; to evaluate a model behind an endpoint say where it is"),
        ([str(LAB), "evaluation.model={base_url: http://x/v1}"], "evaluation.model.model: missing; expected text"),
        ([str(LAB), "evaluation.model.modle=x"], "no such key; did you mean evaluation.model.model?"),
        ([str(LAB), f"evaluation.model={{base_url: http://x/v1, model: m, key_env: {KEY}}}"], "got something else"),
        (
            [str(LAB), model("http://x/v1", key_env="NO_KEY")],
            "evaluation.model: the environment variable NO_KEY holds no",
        ),
        ([str(LAB), model("http://x/v1"), "--trials", "0", "evaluation.greedy=false"], "no trials of them to play"),
        ([str(LAB), model("http://x/v1"), "--recipe", str(LAB)], "is a recipe already; leave out --recipe"),
        ([str(LAB), model("http://x/v1", temperature=0.5)], "evaluation.model.temperature: expected trial, or null"),
        ([".", "seed=4"], "seed=4: only goes with a recipe"),
        ([".", "--run", "a"], "--run a: only goes with a recipe"),
        (
            [str(LAB), model("http://x/v1", budget={"money": 1})],
            "evaluation.model.budget.money: needs evaluation.model",
        ),
    ],
)
def test_each_mistake_is_one_line(typed: list[str], words: str, capsys: Capture) -> None:
    assert main(["evaluate", *typed]) == 2
    said = capsys.readouterr()
    [line] = said.err.splitlines()
    assert words in line
    assert KEY not in line
    assert not list(Path().iterdir())


def test_an_evaluation_that_is_stopped_before_its_first_trial_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped(*_: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sgcd.build_tasks.evaluate_endpoint_model", stopped)
    assert main(["evaluate", str(LAB), model("http://127.0.0.1:9/v1"), "--run", "half"]) != 0
    assert not Path("half").exists()


@pytest.mark.slow
def test_no_torch_is_needed() -> None:
    script = """
import sys

class Without:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Without())
from sgcd.cli import main
sys.exit(main())
"""
    with Server(lab_agent) as server:
        typed = ["evaluate", str(LAB), model(server.url), "--tasks", "3", "--trials", "0"]
        done = subprocess.run([sys.executable, "-c", script, *typed], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1.000" in done.stdout


def test_check_names_the_model_and_calls_nobody(at_desk: Path, capsys: Capture) -> None:
    with Server() as server:
        assert main(["check", "recipe.yaml", model(server.url)]) == 0
        assert server.requests == 0
    assert f"model        clerk at {server.url}, key from MODEL_KEY, budget none\n" in capsys.readouterr().out


def test_training_never_asks_it(at_desk: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "check_ready", lambda self: pytest.fail("nobody is to be asked"))
    told = ("recipe.yaml", "steps=1", "evaluation.every=9")
    assert main(["train", *told, "--run", "plain"]) == 0
    assert main(["train", *told, model("http://127.0.0.1:9/v1", key_env="NO_KEY"), "--run", "named"]) == 0
    kept = [Path(run, "policy/model.safetensors").read_bytes() for run in ("plain", "named")]
    assert kept[0] == kept[1]
    assert "NO_KEY" in Path("named/recipe.yaml").read_text()
    capsys.readouterr()


def test_the_clerk_knows_every_dev_task_by_its_words() -> None:
    opened = [task.row["said"][0] for task in generate_tasks("dev")]
    assert len(set(opened)) > 300
