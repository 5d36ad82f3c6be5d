"""What the verbs answer: tables with intervals for people, one JSON object for programs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgcd.cli import expand_multi_value_options, main
from sgcd.cli.commands.lab import demo
from sgcd.recipe.load import lab_recipe_path, load_recipe
from sgcd.storage.run_folder import RunFolder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def trained(at_desk: Path, capsys: Capture) -> str:
    """What training said on standard output, and the run A that it left."""
    assert main(["train", "recipe.yaml", "--run", "A", "steps=2"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", [[], ["check"], ["train"], ["evaluate"], ["compare"], ["lab"], ["lab", "warm-start"]])
def test_every_verb_explains_itself(capsys: Capture, verb: list[str]):
    for ask in ("-h", "--help"):
        assert main([*verb, ask]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: {' '.join(['sgcd', *verb])}")


def test_the_help_of_training_lists_every_key(capsys: Capture):
    main(["train", "--help"])
    said = capsys.readouterr().out
    assert "siblings.limits.tokens" in said
    assert "Learning rate after warm-up" in said


def test_nothing_typed_is_answered_with_help(capsys: Capture):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("Usage: sgcd")


def test_against_takes_all_that_follows():
    typed = ["compare", "a", "b", "--against", "c", "d", "--json"]
    assert expand_multi_value_options(typed) == ["compare", "a", "b", "--against", "c", "--against", "d", "--json"]
    assert expand_multi_value_options(["train", "r.yaml", "--run", "A"]) == ["train", "r.yaml", "--run", "A"]


@pytest.mark.usefixtures("at_desk")
def test_check_says_what_would_be_run_and_writes_nothing(capsys: Capture):
    before = sorted(Path().rglob("*.yaml"))
    assert main(["check", "recipe.yaml", "steps=7"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"policy: 1\d,\d{3} parameters, float32", said)
    assert "12 train, 6 dev tasks" in said
    assert "7 steps of 2 mixed groups of 4 rollouts" in said
    assert re.search(r"task train-0: \d+ tokens of prompt, \d+ of response in [12] turns", said)
    assert "18 trials of dev tasks every 2 steps" in said
    assert re.search(r"\nwrote +\S", said)
    assert sorted(Path().rglob("*.yaml")) == before


def test_training_ends_with_a_table_of_intervals(trained: str):
    assert "dev tasks: step 0 against step 2" in trained
    rows = [line.split() for line in trained.splitlines()]
    [greedy] = [row for row in rows if row[:1] == ["greedy"]]
    assert greedy[1] == "6"
    assert trained.count("[") >= 2 * 3 * 3  # modes x (all, action, information) x (start, end, difference)
    assert "successes without a tool" in trained
    assert trained.rstrip().endswith("policy: A/policy")
    limits = [f"{section}.micro_batch_tokens=32768" for section in ("optimizer", "scoring")]  # by the memory
    assert load_recipe(Path("A/recipe.yaml")) == load_recipe(Path("recipe.yaml"), ["steps=2", *limits])


@pytest.mark.usefixtures("at_desk")
def test_examples_of_calls_in_the_recipes_system_message_and_in_few_shot_turns_are_played_as_written():
    shot = [{"role": "user", "content": "a <call>"}, {"role": "assistant", "content": "<call> find_user </call>"}]
    row = {"id": "t1", "word": "yes", "verifier": "front:heard", "prompt": shot}
    Path("train.jsonl").write_text(json.dumps(row))
    keys = ["steps=1", "evaluation.trials=1", "siblings.rounds=1", "siblings.groups=1"]
    main(["train", "recipe.yaml", "--run", "A", *keys, "environment.system=call <call> find_user </call>"])
    [stored] = RunFolder.open(Path("A")).read_rollouts(1)
    system, user, assistant = stored.group.rollouts[0].messages[:3]
    assert (system["content"], assistant["content"]) == ("call <call> find_user </call>", shot[1]["content"])
    assert user["content"] == "a < call>"


@pytest.mark.usefixtures("at_desk")
def test_an_instruction_for_tools_that_would_change_nothing_is_refused(capsys: Capture):
    assert main(["check", "recipe.yaml", "policy.tool_instruction=use {tools}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sgcd: policy.tool_instruction: the template of policy has another one")


OWN_CATEGORIES = "environment.categories={order: {needs_tool: true}, chat: {needs_tool: false}}"


@pytest.mark.usefixtures("at_desk")
def test_own_categories_are_in_the_tables_and_successes_without_a_tool_where_they_mean_something(capsys: Capture):
    for name in ("train.jsonl", "dev.jsonl"):
        text = Path(name).read_text().replace('"action"', '"order"').replace('"information"', '"chat"')
        Path(name).write_text(text)
    assert main(["check", "recipe.yaml"]) == 2
    assert capsys.readouterr().err == (
        "sgcd: train.jsonl, line 1: category must be one of action, information, transfer, no_action, got 'order'; "
        "declare your own in the recipe, as environment.categories={order: {needs_tool: true}}\n"
    )
    for value in ('{"order": {}}', '{"order": {"need_tool": true}}'):
        assert main(["check", "recipe.yaml", f"environment.categories={value}"]) == 2
        assert capsys.readouterr().err == (
            "sgcd: recipe.yaml: environment.categories: expected a mapping from names to {needs_tool: true or false}, "
            f"got {value}\n"
        )
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", OWN_CATEGORIES]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ *order +3 ", said, re.MULTILINE) and re.search(r"^ *chat +3 ", said, re.MULTILINE)
    assert re.search(r"; successes without a tool: (\d+) of \1 on order tasks\n", said)
    assert [*RunFolder.open(Path("A")).read_metrics()[0].audit] == ["order"]
    assert main(["report", "A"]) == 0
    assert re.search(r"<t[dh][^>]*>\s*order", Path("A/report.html").read_text())


@pytest.mark.usefixtures("at_desk")
def test_without_categories_no_line_speaks_of_successes_without_a_tool(capsys: Capture):
    for name in ("train.jsonl", "dev.jsonl"):
        rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
        Path(name).write_text("".join(json.dumps({**row, "category": ""}) + "\n" for row in rows))
    assert main(["evaluate", "policy", "--recipe", "recipe.yaml", "--split", "dev"]) == 0
    assert "successes without a tool" not in capsys.readouterr().out


@pytest.mark.usefixtures("at_desk")
def test_json_is_one_object_and_progress_goes_elsewhere(capsys: Capture):
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert (told["run"], told["step"], told["policy"]) == ("A", 1, "A/policy")
    assert told["change"]["modes"]["sampled"]["overall"]["difference"].keys() >= {"value", "low", "high"}
    assert "step 1/1" in said.err
    assert "after step 0: 6 dev tasks, greedy: .000 [.000, .390]" in said.err


@pytest.mark.usefixtures("at_desk")
def test_a_run_that_proves_nothing_says_so_in_every_output(capsys: Capture):
    """At the desk a reference changes nothing of what the policy says, so every weight stays one."""
    sgcd = ["recipe.yaml", "method={name: sgcd}", "steps=1"]
    assert main(["train", *sgcd, "--run", "A"]) == 0
    said = capsys.readouterr()
    [row] = [json.loads(line) for line in Path("A/metrics.jsonl").read_text().splitlines()]
    [reason] = row["invalid"]
    assert re.match("(features: the divergence of .* is zero|weights: inert, 0 % of .*)$", reason)
    assert f"INVALID: {reason}" in said.err
    assert f"INVALID: {reason} (step 1)" in said.out
    assert main(["train", *sgcd, "--run", "B", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["invalid"] == [f"{reason} (step 1)"]
    assert main(["compare", "A", "--against", "A@0"]) == 0
    assert f"INVALID: A: {reason} (step 1)" in capsys.readouterr().out
    assert main(["evaluate", "A", "--trials", "1", "--tasks", "1"]) == 0
    assert f"INVALID: {reason} (step 1)" in capsys.readouterr().out
    assert main(["report", "A"]) == 0
    assert reason in Path("A/report.html").read_text()


def test_an_evaluation_joins_its_run(trained: str, capsys: Capture):
    rows = Path("A/evaluation.jsonl").read_text().splitlines()
    assert main(["evaluate", "A", "--trials", "1", "--tasks", "2"]) == 0
    said = capsys.readouterr()
    assert "dev tasks after step 2" in said.out
    assert "playing 4 trials of dev tasks with A/policy" in said.err
    more = [json.loads(line) for line in Path("A/evaluation.jsonl").read_text().splitlines()[len(rows) :]]
    assert [(row["step"], row["mode"], row["task"]) for row in more] == [
        (2, "greedy", "dev-0"),
        (2, "greedy", "dev-1"),
        (2, "sampled", "dev-0"),
        (2, "sampled", "dev-1"),
    ]
    played: Any = [json.loads(line) for line in rows if '"step": 2' in line]
    same = {(row["mode"], row["task"], row["trial"]): row["success"] for row in played}
    assert [same[row["mode"], row["task"], row["trial"]] for row in more] == [row["success"] for row in more]


def test_a_run_is_compared_with_its_own_start(trained: str, capsys: Capture):
    assert main(["compare", "A", "--against", "A@0"]) == 0
    said = capsys.readouterr().out
    assert "A@2  against  A@0  (dev tasks)" in said
    assert "permutation over tasks" in said or "the same on all" in said


@pytest.mark.usefixtures("at_desk")
def test_a_run_without_held_out_tasks_says_so(capsys: Capture):
    assert main(["train", "recipe.yaml", "--run", "A", "steps=1", "environment.dev="]) == 0
    assert "no held-out tasks, so nothing was measured; name some by environment.dev" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("at_desk")
def test_the_demo_takes_a_new_folder_each_time(capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    small = Path("small.yaml")
    small.write_text(Path("recipe.yaml").read_text().replace("steps: 3", "steps: 1"))
    sgcd = Path("sgcd.yaml")
    sgcd.write_text(small.read_text().replace("name: grpo", "name: sgcd"))
    assert sgcd.read_text() != small.read_text()
    monkeypatch.setattr("sgcd.recipe.load.lab_recipe_path", lambda name: sgcd if name.endswith("sgcd") else small)
    assert main(["lab"]) == 0
    said = capsys.readouterr().out
    assert "runs/lab-sgcd-1@1  against  runs/lab-grpo-1@1  (dev tasks)" in said
    assert "report of sgcd: runs/lab-sgcd-1/report.html" in said
    [verdict] = [line for line in said.splitlines() if line.startswith("Success on dev tasks ")]
    assert verdict.endswith(".") and said.splitlines()[-1].startswith("At the long desk, ")
    assert main(["lab", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {method: run["run"] for method, run in told["runs"].items()} == {
        "grpo": "runs/lab-grpo-2",
        "sgcd": "runs/lab-sgcd-2",
    }
    assert told["comparison"]["modes"]["sampled"]["overall"]["difference"]["value"] is not None
    for method, page in told["reports"].items():
        assert Path(page).is_file()
        assert Path(f"runs/lab-{method}-1/policy/model.safetensors").exists()


def test_the_verdict_of_the_demo_names_what_rose_what_fell_and_who_is_ahead():
    def part(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
        return {"value": value, "tasks": 1, "difference": {"value": value, "low": low, "high": high}}

    def side(overall: dict[str, Any], refusals: dict[str, Any]) -> dict[str, Any]:
        return {"modes": {"sampled": {"overall": overall, "categories": {"no_action": refusals}}}}

    grpo = {"start": side(part(0.4), part(0.5)), "end": side(part(0.6), part(0.1))}
    grpo["change"] = side(part(0.2, 0.1, 0.3), part(-0.4, -0.5, -0.3))
    sgcd = {"start": side(part(0.4), part(0.5)), "end": side(part(0.41), part(0.48))}
    sgcd["change"] = side(part(0.01, -0.1, 0.1), part(-0.02, None, None))
    comparison = {"split": "dev", **side(part(-0.19, -0.3, -0.1), part(0.0))}
    assert demo.demo_verdict({"grpo": grpo, "sgcd": sgcd}, comparison) == (
        "Success on dev tasks rose from .400 to .600 with GRPO and did not clearly change from .400 to .410 with SGCD; "
        "GRPO is ahead (SGCD less GRPO: -.190 [-.300, -.100]); no_action fell from .500 to .100 with GRPO."
    )


def test_the_demo_says_what_three_methods_reached_at_the_long_desk() -> None:
    def run(end: float) -> dict[str, Any]:
        ends = {"start": 0.25, "end": end}
        return {part: {"modes": {"sampled": {"overall": {"value": value}}}} for part, value in ends.items()}

    def less_grpo(value: float) -> dict[str, Any]:
        return {"difference": {"value": value, "low": value - 0.1, "high": value + 0.1, "kind": "t"}}

    said = demo.desk_verdict(
        {"grpo": run(0.6), "sgcd": run(0.5), "by_turn": run(0.8)},
        {"sgcd": less_grpo(-0.1), "by_turn": less_grpo(0.2)},
    )
    assert "success went from .250 to .600 with grpo, to .500 with sgcd, to .800 with by_turn" in said
    assert "sgcd is not told from GRPO (-.100 [-.200, +.000]), by_turn is above GRPO (+.200 [+.100, +.300])" in said


def test_warm_starts_are_shown_by_their_gate(capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    from sgcd.lab import warm_starts as start

    def rebuild(names: list[str], out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
        say("training")
        return {names[0]: {"sampled": {"value": 0.4, "low": 0.3, "high": 0.5}, "categories": {"action": 0.25}}}

    monkeypatch.setattr(start, "build_warm_starts", rebuild)
    assert main(["lab", "warm-start", "plain", "--out", "x"]) == 0
    assert capsys.readouterr() == ("plain: sampled .400 [.300, .500] (action .250)\n", "training\n")
    assert main(["lab", "warm-start", "plain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gates"]["plain"]["categories"] == {"action": 0.25}


def test_the_demo_runs_the_recipe_that_people_read():
    for method in demo.DEMO_METHODS:
        beside = Path(__file__).parents[2] / "recipes" / "lab" / f"{method}.yaml"
        assert lab_recipe_path(method).resolve() == beside.resolve()
