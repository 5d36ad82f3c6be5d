"""What a person can put right ends with exit code 2 and one line; a bug is a traceback; a stop says how to go on."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from sgcd.cli import app, main
from sgcd.errors import (
    DataError,
    EmptyResult,
    EndpointError,
    EngineError,
    EnvironmentFault,
    FolderError,
    MethodFault,
    PolicyError,
    RecipeError,
    RecordError,
    SgcdError,
    StudyError,
    TemplateError,
)

Capture = pytest.CaptureFixture[str]


def refused(capture: Capture, *typed: str) -> str:
    """The one line that was said."""
    capture.readouterr()
    assert main(typed) == 2
    said = capture.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith("sgcd: ")
    return line


def swapped(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def test_a_misspelt_key_names_the_right_one(capsys: Capture):
    assert "surrogate.clip" in refused(capsys, "check", "recipes/lab/grpo.yaml", "surrogate.clp=0.3")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["check"], "check RECIPE"),
        (["check", "nowhere.yaml"], "nowhere.yaml: expected a recipe's YAML file"),
        (
            ["check", "recipe.yaml", "siblings.group_size=1"],
            "siblings.group_size: expected a whole number, at least 2, got 1",
        ),
        (
            ["check", "recipe.yaml", "scoring.logits_bytes=1000"],
            "scoring.logits_bytes: 1,000 do not hold one row of logits",
        ),
        (
            ["check", "recipe.yaml", "control=permuted", "siblings.group_size=1"],
            "siblings.group_size: expected a whole number, at least 2, got 1",
        ),
        (
            ["train", "recipe.yaml", "--run", "A", "surrogate.trust_region=clip_cov"],
            "surrogate.trust_region=clip_cov: acts from the second update of a batch on; expected optimizer.updates of "
            "at least 2, got 1",
        ),
        (["check", "recipe.yaml", "surrogate.trust_region=kl_cov"], "expected optimizer.updates of at least 2, got 1"),
        (["check", "recipe.yaml", "surrogate.trust_region=dppo_tv"], "expected optimizer.updates of at least 2, got 1"),
        (
            ["check", "recipe.yaml", "surrogate={clip_high: 0.5, dual_clip: 1.4}"],
            "surrogate.dual_clip: expected more than 1 + clip_high, 1.5, got 1.4",
        ),
        (
            ["check", "recipe.yaml", "surrogate={dual_clip: 3, trust_region: kl_cov}"],
            "surrogate.dual_clip: only goes with trust_region=clip, got kl_cov",
        ),
        (
            ["check", "recipe.yaml", "surrogate={preset: gspo, trust_region: dppo_kl}"],
            "surrogate.trust_region=dppo_kl: only goes with ratio=token, got sequence",
        ),
        (
            ["check", "recipe.yaml", "surrogate={ratio: none, dual_clip: 3}"],
            "surrogate.dual_clip: ratio=none has no ratio to bound",
        ),
        (
            ["check", "recipe.yaml", "surrogate.covariance={share: 0.1}"],
            "surrogate.covariance: only goes with trust_region=clip_cov or kl_cov, got clip",
        ),
        (
            ["check", "recipe.yaml", "surrogate.covariance={low: 5, high: 1}", "surrogate.trust_region=clip_cov"],
            "surrogate.covariance.high: expected more than low, 5, got 1",
        ),
        (["check", "recipe.yaml", "surrogate.preset=grop"], "surrogate.preset: expected one of grpo, grpo_kl, dapo, "),
        (["check", "recipe.yaml", "optimizer.updates=0"], "optimizer.updates: expected a whole number, at least 1"),
        (["check", "recipe.yaml", "policy.start=nowhere"], "policy.start: nowhere is not a folder"),
        (["check", "recipe.yaml", "policy.start=lab:moon"], "no warm start 'moon'"),
        (["check", "recipe.yaml", "environment.tasks=nowhere.jsonl"], "environment.tasks: nowhere.jsonl"),
        (["check", "recipe.yaml", "environment.class=front:Dsk"], "Desk"),
        (["check", "recipe.yaml", "environment.class=nowhere:Desk"], "nowhere"),
        (["check", "recipe.yaml", "environment.class=front:Mute"], "environment.class: Mute has no tools"),
        (["check", "recipe.yaml", "again.yaml"], "again.yaml: expected key=value"),
        (["train", "--run", "A"], "sgcd train RECIPE --run A"),
        (["train", "--run", "nowhere", "--resume"], "nowhere: does not exist"),
        (["train", "--run", "policy", "--resume"], "policy: is not a run's folder"),
        (["train", "recipe.yaml", "--run", "policy"], "policy: the folder is not empty"),
        (["train", "recipe.yaml"], "--run"),
        (["evaluate", "nowhere"], "nowhere: does not exist"),
        (["evaluate", "policy"], "--recipe"),
        (["evaluate", "policy", "--recipe", "recipe.yaml", "--split", "test"], "no test tasks"),
        (["compare", "nowhere", "--against", "policy"], "nowhere: does not exist"),
        (["compare", "policy"], "--against"),
        (["trian", "recipe.yaml"], "train"),
        (["lab", "warm-start", "moon"], "there is no 'moon'; expected one of plain, "),
    ],
)
@pytest.mark.usefixtures("at_desk")
def test_each_mistake_is_one_line(capsys: Capture, typed: list[str], said: str):
    assert said in refused(capsys, *typed)


@pytest.mark.usefixtures("at_desk")
def test_an_occupied_folder_is_left_as_it_is(capsys: Capture):
    Path("A").mkdir()
    Path("A/recipe.yaml").write_text("mine")
    assert "there is a run in this folder already; go on with it (sgcd train --run A --resume)" in refused(
        capsys, "train", "recipe.yaml", "--run", "A"
    )
    assert [path.name for path in Path("A").iterdir()] == ["recipe.yaml"]


@pytest.mark.usefixtures("at_desk")
def test_a_recipe_that_cannot_be_run_makes_no_folder(capsys: Capture):
    refused(capsys, "train", "recipe.yaml", "--run", "A", "policy.start=nowhere")
    assert not Path("A").exists()


def nothing() -> None:
    pass


def no_template() -> None:
    Path("policy/chat_template.jinja").unlink()


def no_suffix() -> None:
    """The whole conversation in capitals as soon as it has an answer: no turn extends the one before."""
    path = Path("policy/chat_template.jinja")
    path.write_text(
        "{% if messages | length > 1 %}{% for message in messages | reverse %}{{ message.content | upper }}{% endfor %}"
        f"{{% else %}}{path.read_text()}{{% endif %}}"
    )


def no_verifier() -> None:
    swapped("train.jsonl", ', "verifier": "front:heard"', "")


def no_weights() -> None:
    Path("policy/model.safetensors").unlink()


def no_tasks() -> None:
    Path("train.jsonl").write_text("\n")


def no_key() -> None:
    assert "NO_SUCH_KEY" not in os.environ


def misspelt_study() -> None:
    Path("study.yaml").write_text("version: 1\nsedds: [1]\n")


METHOD = "method={name: sgcd}"
OWN = 'method={name: own, class: "front:Desk"}'
WRITER = "reference.writer={name: llm, base_url: http://127.0.0.1:9/v1, model: m, key_env: NO_SUCH_KEY}"

REACHED: dict[type[SgcdError], tuple[Any, list[str], str]] = {
    RecipeError: (nothing, ["check", "recipe.yaml", "sead=1"], "seed"),
    FolderError: (nothing, ["train", "--run", "policy", "--resume"], "is not a run's folder"),
    PolicyError: (no_weights, ["check", "recipe.yaml"], "policy: no weights there"),
    TemplateError: (no_template, ["check", "recipe.yaml"], "template"),
    EndpointError: (no_key, ["train", "recipe.yaml", "--run", "A", METHOD, WRITER], "NO_SUCH_KEY holds no key"),
    MethodFault: (nothing, ["check", "recipe.yaml", OWN], "method.class: front:Desk has no signal()"),
    DataError: (nothing, ["sft", "recipe.yaml", "--run", "A", "supervised.data=[none.jsonl]"], "none.jsonl holds no"),
    StudyError: (misspelt_study, ["study", "study.yaml"], "sedds: no such key; expected one of version, title, recipe"),
    EngineError: (
        nothing,
        ["train", "recipe.yaml", "--run", "A", "engine=verl", "verl.prompt_tokens=400"],
        "is not installed here",
    ),
    EnvironmentFault: (no_verifier, ["check", "recipe.yaml"], "train.jsonl, line 1: the task has no verifier"),
}


@pytest.mark.parametrize("kind", REACHED, ids=lambda kind: kind.__name__)
@pytest.mark.usefixtures("at_desk")
def test_each_class_of_error_is_reached_and_said_in_one_line(capsys: Capture, kind: type[SgcdError]):
    spoil, typed, said = REACHED[kind]
    spoil()
    with pytest.raises(kind):
        app(args=typed, standalone_mode=False)
    assert said in refused(capsys, *typed)


def test_no_class_of_error_is_left_out():
    assert {*REACHED, RecordError, EmptyResult} == set(SgcdError.__subclasses__())


@pytest.mark.usefixtures("at_desk")
def test_a_task_that_breaks_is_found_by_the_check(capsys: Capture):
    shutil.copy("front.py", "closed.py")
    swapped("closed.py", 'return f"please say {word}"', 'raise OSError("the desk is closed")')
    line = refused(capsys, "check", "recipe.yaml", "environment.class=closed:Desk")
    assert "task train-0 breaks (open: OSError: the desk is closed)" in line


@pytest.mark.usefixtures("at_desk")
def test_a_run_or_an_evaluation_in_which_all_broke_ends_with_code_1_and_can_go_on(capsys: Capture):
    opens = 'return f"please say {word}"'
    guarded = f'if Path("down").exists():\n            raise OSError("database is down")\n        {opens}'
    Path("guarded.py").write_text("from pathlib import Path\n" + Path("front.py").read_text().replace(opens, guarded))
    keys = ["environment.class=guarded:Desk", "siblings.rounds=1"]
    Path("down").touch()
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", *keys]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"grpo trains policy \(1\d,\d{3} parameters\) in A", first)
    assert last == (
        "sgcd: A: 8 of 8 rollouts broke, 8 of them by open: OSError; the first text: open: OSError: database is down; "
        "mend that; the run can go on: sgcd train --run A --resume steps=N"
    )
    Path("down").unlink()
    assert main(["train", "--run", "A", "--resume", "steps=3"]) == 0
    assert capsys.readouterr().err.splitlines()[0].endswith("in A, resumed after step 1")
    before = Path("A/evaluation.jsonl").read_bytes()
    capsys.readouterr()
    Path("down").touch()
    assert main(["evaluate", "A", "--json"]) == 1
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["modes"]["greedy"]["broken"]["trials"] == 6
    assert said.err.splitlines()[-1] == f"sgcd: {answer['no_result']}"
    assert said.err.splitlines()[-1].startswith(
        "sgcd: evaluation: all 18 trials of dev tasks broke, 18 of them by open: OSError; the first text: open: OSError"
    )
    assert Path("A/evaluation.jsonl").read_bytes() == before, "what was measured before stays in force"


@pytest.mark.usefixtures("at_desk")
def test_a_verifier_that_raises_for_one_task_breaks_that_task_alone(capsys: Capture):
    Path("strict.py").write_text("def judge(environment, answer):\n    raise KeyError('gold')\n")
    first, *others = Path("train.jsonl").read_text().splitlines()
    Path("four.jsonl").write_text("\n".join([first.replace("front:heard", "strict:judge"), *others[:3]]))
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "environment.tasks=four.jsonl"]) == 0
    assert "  4 of 16 rollouts broken: verify: KeyError: 'gold'" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("spoil", "said"), [(no_suffix, "template"), (no_tasks, "train.jsonl holds no task")])
@pytest.mark.usefixtures("at_desk")
def test_what_a_recipe_names_is_checked_before_anything_is_trained(capsys: Capture, spoil: Any, said: str):
    spoil()
    assert said in refused(capsys, "check", "recipe.yaml")
    assert said in refused(capsys, "train", "recipe.yaml", "--run", "A")
    assert not Path("A").exists()


@pytest.mark.usefixtures("at_desk")
def test_a_record_that_does_not_fit_stops_the_run(capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    from sgcd.credit.methods.grpo import Grpo
    from sgcd.credit_records import Credit, Signal

    def assign_credit(self: Grpo, inputs: Any) -> Signal:
        return Signal(Credit(advantage=float("inf"), weight=inputs.rollout.response_mask.astype("float32")))

    monkeypatch.setattr(Grpo, "assign_credit", assign_credit)
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "sgcd: credit: the advantage must be finite, got inf"
    assert Path("A/rollouts/0001.jsonl").exists(), "what was played is on disk"


@pytest.mark.usefixtures("at_desk")
def test_a_changed_recipe_is_refused_and_its_keys_are_named(capsys: Capture):
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "evaluation.greedy=false"]) == 0
    line = refused(capsys, "train", "--run", "A", "--resume", "seed=4", "steps=2", "environment.class=front:Mute")
    assert "started with seed=3, environment.class=front:Desk; seed=4, environment.class=front:Mute cannot" in line
    assert "steps=2" not in line
    line = refused(capsys, "train", "recipe.yaml", "--run", "A", "--resume")
    assert "started with evaluation.greedy=false; evaluation.greedy=true cannot be resumed" in line
    assert main(["train", "--run", "A", "--resume", "steps=2", "checkpoint.every=5"]) == 0
    assert "has done 2 steps already" in refused(capsys, "train", "--run", "A", "--resume", "steps=1")
    assert "--recipe" in refused(capsys, "evaluate", "A", "--recipe", "recipe.yaml")
    assert "no evaluation" in refused(capsys, "compare", "A@1", "--against", "A@7")
    facts = Path("A/facts.json").read_text()
    Path("A/facts.json").write_text(json.dumps(json.loads(facts) | {"schema": 99}))
    assert "schema 99" in refused(capsys, "train", "--run", "A", "--resume")
    shutil.rmtree("A/policy")
    Path("A/facts.json").write_text(facts)
    assert "no policy/ yet" in refused(capsys, "evaluate", "A")


@pytest.mark.usefixtures("at_desk")
def test_a_stop_by_hand_says_how_to_go_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    from sgcd.show.terminal import Terminal

    def stop(self: Terminal, row: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell put us in the background
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Terminal, "on_step", stop)
            assert main(["train", "recipe.yaml", "--run", "A"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "stopped; to go on: sgcd train --run A --resume" in capsys.readouterr().err
    assert main(["train", "--run", "A", "--resume"]) == 0


@pytest.mark.usefixtures("at_desk")
def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    from sgcd import assemble

    def bug(recipe: Any, threads: Any = None) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(assemble, "assemble", bug)
    with pytest.raises(ZeroDivisionError):
        main(["check", "recipe.yaml"])
