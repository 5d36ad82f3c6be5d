"""sgcd sft as it is typed: a start from conversations, its faults in one line each, and a stop that leaves no trace."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sgcd.chat import Chat
from sgcd.cli import main
from sgcd.learn.supervised.conversations import read_conversations
from sgcd.learn.supervised.encode import encode_conversations
from sgcd.learn.supervised.trainer import SupervisedTrainer
from sgcd.storage.run_folder import RunFolder

Capture = pytest.CaptureFixture[str]
TOOLS = [{"type": "function", "function": {"name": "find_user", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "a", "type": "function", "function": {"name": "find_user", "arguments": '{"name": "mia"}'}}
KEYS = ["supervised={data: [talks.jsonl], dev: [dev-talks.jsonl], batch_size: 4, epochs: 3, lr: 0.02}"]

UNPLAYED = ["evaluation={trials: 0, greedy: false}"]


def talk(word: str, *more: dict[str, Any]) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"please say {word}"}]
    called = [{"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "user mia"}]
    return {"messages": [*asked, *called, {"role": "assistant", "content": word}, *more], "tools": TOOLS}


@pytest.fixture
def at_talks(at_desk: Path) -> Path:
    """The desk with conversations in which the one word is said."""
    for name, count in (("talks", 10), ("dev-talks", 3)):
        lines = [json.dumps(talk(("yes", "no")[number % 2])) + "\n" for number in range(count)]
        (at_desk / f"{name}.jsonl").write_text("".join(lines))
    recipe = (at_desk / "recipe.yaml").read_text()
    (at_desk / "sft.yaml").write_text(recipe.replace("steps: 3\n", "").replace("method: {name: grpo}\n", ""))
    return at_desk


def refused(capsys: Capture, *typed: str) -> str:
    capsys.readouterr()
    assert main(typed) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sgcd: ")
    return line


def plain_loss(folder: str, file: str) -> float:
    """The loss of conversations by plain transformers: the mean of -log p over the tokens of assistant turns."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoTokenizer
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    examples = encode_conversations(read_conversations(Path(file)), Chat.load(Path(folder)), 512)
    total, count = 0.0, 0
    for one in examples.rollouts:
        rendered = loaded.from_pretrained(folder).apply_chat_template(
            list(one.messages), tools=list(one.tools), return_dict=False
        )
        assert rendered == [*one.prompt.tolist(), *one.response.tolist()]
        logprobs = model(input_ids=torch.tensor([rendered])).logits[0, :-1].log_softmax(-1).detach()
        for position, learned in enumerate(one.response_mask, start=len(one.prompt)):
            total -= float(logprobs[position - 1, rendered[position]]) * bool(learned)
            count += bool(learned)
    return total / count


UNKNOWN = {**talk("yes"), "tools": []}
LONG = talk("yes", {"role": "user", "content": "yes " * 500}, {"role": "assistant", "content": "no"})
SILENT = {"messages": [{"role": "user", "content": "yes"}]}


def test_a_start_learns_and_its_loss_is_that_of_plain_transformers(at_talks: Path, capsys: Capture) -> None:
    with Path("talks.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in (UNKNOWN, LONG, SILENT, SILENT)))
    assert main(["sft", "sft.yaml", "--run", "A", "--json", *KEYS, *UNPLAYED]) == 0
    captured = capsys.readouterr()
    assert "learns from 10 conversations" in captured.err
    for line in (
        "left out, an unknown tool is called: 1 (the first: talks.jsonl, line 11: find_user)",
        "left out, longer than 512 tokens: 1 (the first: talks.jsonl, line 12: 5",
        "left out, no assistant turn: 2 (the first: talks.jsonl, line 13)",
    ):
        assert f"supervised.data: {line}" in captured.err
    counts = json.loads(captured.out)["supervised"]["data"]
    assert counts["conversations"] == 10
    assert sum(counts["left_out"].values()) == 4
    folder = RunFolder.open(Path("A"))
    assert folder.kind == "supervised"
    rows = folder.read_metrics()
    assert [row.step for row in rows] == list(range(1, 10))  # three epochs of three steps
    assert sorted(row.supervised.examples for row in rows if row.supervised) == [2] * 3 + [4] * 6
    assert sum(row.tokens_learnt for row in rows) == 3 * counts["tokens"]
    losses = {row["step"]: row["loss"] for row in folder.row_files.read("dev-loss.jsonl")}
    assert [*losses] == [0, 9]
    assert losses[9] < losses[0] / 2
    assert losses[9] == pytest.approx(plain_loss("A/policy", "dev-talks.jsonl"), abs=1e-5)


def test_files_without_a_conversation_to_learn_from_are_refused(at_talks: Path, capsys: Capture) -> None:
    Path("talks.jsonl").write_text(json.dumps(SILENT) + "\n")
    line = refused(capsys, "sft", "sft.yaml", "--run", "B", *KEYS)
    assert "supervised.data: no conversation can be learned from: left out, no assistant turn: 1" in line


@pytest.mark.slow
def test_a_start_with_pairs_learns_from_both_and_names_what_it_cannot_use(at_talks: Path, capsys: Capture) -> None:
    assert main(["train", "recipe.yaml", "--run", "R", "siblings.group_size=6", *UNPLAYED]) == 0
    keys = [*KEYS, "supervised.pairs=[R]", *UNPLAYED]
    assert main(["sft", "sft.yaml", "--run", "A", "--json", *keys]) == 0
    captured = capsys.readouterr()
    pairs = json.loads(captured.out.splitlines()[-1])["supervised"]["pairs"]
    assert f"and from {pairs['pairs']} pairs of {pairs['groups']} groups" in captured.err
    assert "supervised.pairs: mixed groups without a pair, nothing parts them: " in captured.err
    folder = RunFolder.open(Path("A"))
    assert all(row.supervised and row.supervised.pairs for row in folder.read_metrics())
    assert "R/rollouts/0001.jsonl" in folder.facts["supervised"]["files"]
    changed = RunFolder.open(Path("R"))
    changed.facts["policy"]["template"] = "another"
    RunFolder.create(Path("S"), changed.recipe_text, changed.facts)
    shutil.copytree("R/rollouts", "S/rollouts")
    for key, problem in {
        "nowhere": "nowhere: does not exist",
        "A": "supervised.pairs: A has no rollouts; expected the folder of a run of sgcd train",
        "S": "supervised.pairs: S was played with another chat template",
    }.items():
        assert problem in refused(capsys, "sft", "sft.yaml", "--run", "B", *keys, f"supervised.pairs=[{key}]")
    llm = "reference.writer={name: llm, base_url: http://127.0.0.1:9/v1, model: m}"
    assert "expected reference.writer.name of built-in or trace, got llm" in refused(
        capsys, "sft", "sft.yaml", "--run", "B", *keys, llm
    )
    assert not Path("B").exists()


@pytest.mark.slow
def test_a_start_is_checked_evaluated_reported_and_reinforced_from(at_talks: Path, capsys: Capture) -> None:
    assert main(["sft", "sft.yaml", "--run", "A", *KEYS]) == 0
    assert main(["check", "A"]) == 0
    assert main(["evaluate", "A", "--split", "dev"]) == 0
    assert main(["evaluate", "A", "--step", "8", "--trials", "3"]) == 0
    out = capsys.readouterr().out
    assert "dev tasks after step 8" in out
    assert re.search(r"sampled: pass@k, .*: \S+ at 1, \S+ at 2, \S+ at 3; pass\^k, .* at 3\n", out)
    assert "has no checkpoint of step 5; there are 8, 9" in refused(capsys, "evaluate", "A", "--step", "5")
    assert "is no run's folder" in refused(capsys, "evaluate", "A/policy", "--step", "5", "--recipe", "recipe.yaml")
    assert main(["report", "A"]) == 0
    assert main(["train", "recipe.yaml", "--run", "B", "policy.start=A/policy"]) == 0
    assert main(["compare", "B", "--split", "dev", "--against", "A"]) == 0


@pytest.mark.slow
def test_a_recipe_for_a_start_alone_is_checked_and_not_trained_by_reinforcement(
    at_talks: Path, capsys: Capture
) -> None:
    assert main(["check", "sft.yaml", *KEYS]) == 0
    assert "10 conversations, " in capsys.readouterr().out
    assert "steps: missing" in refused(capsys, "train", "sft.yaml", "--run", "A", *KEYS)
    assert "supervised: missing" in refused(capsys, "sft", "recipe.yaml", "--run", "A")


@pytest.mark.slow
def test_a_stopped_start_goes_on_to_the_same_bytes(
    at_talks: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sft", "sft.yaml", "--run", "A", *KEYS]) == 0
    train_step = SupervisedTrainer._train_step

    async def stopped(self: SupervisedTrainer, step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt
        await train_step(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "_train_step", stopped)
        assert main(["sft", "sft.yaml", "--run", "B", *KEYS, "checkpoint.every=2"]) == 130
    assert "sgcd sft --run B --resume" in capsys.readouterr().err
    assert "sgcd sft --run B --resume" in refused(capsys, "train", "--run", "B", "--resume")
    assert main(["sft", "--run", "B", "--resume"]) == 0
    for name in ("policy/model.safetensors", "dev-loss.jsonl"):
        assert Path("A", name).read_bytes() == Path("B", name).read_bytes()
    assert "supervised.lr" in refused(capsys, "sft", "--run", "B", "--resume", "supervised.lr=0.5")
    assert main(["sft", "--run", "A", "--resume", "supervised.epochs=4"]) == 0
    assert RunFolder.open(Path("A")).read_metrics()[-1].step == 12
    Path("talks.jsonl").write_text(Path("talks.jsonl").read_text().replace("mia", "max"))
    assert "talks.jsonl has changed" in refused(capsys, "sft", "--run", "B", "--resume")


@pytest.mark.slow
def test_a_killed_start_goes_on_to_the_same_bytes(at_talks: Path) -> None:
    command, longer = [sys.executable, "-m", "sgcd", "sft"], ["supervised.epochs=6", "checkpoint.keep=9"]
    assert main(["sft", "sft.yaml", "--run", "A", *KEYS, *longer]) == 0
    process = subprocess.Popen([*command, "sft.yaml", "--run", "B", *KEYS, *longer])
    while not Path("B/checkpoints/0005").exists():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert subprocess.run([*command, "--run", "B", "--resume"], check=False).returncode == 0
    assert Path("A/policy/model.safetensors").read_bytes() == Path("B/policy/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (['{"messages": ['], "talks.jsonl, line 11: not JSON"),
        (['{"messages": [{"role": "robot"}]}'], "talks.jsonl, line 11: messages.0.role"),
    ],
)
def test_a_broken_line_is_named_and_makes_no_folder(
    at_talks: Path, capsys: Capture, lines: list[str], complaint: str
) -> None:
    with Path("talks.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")
    assert complaint in refused(capsys, "sft", "sft.yaml", "--run", "A", *KEYS)
    assert not Path("A").exists()


def test_a_template_that_cannot_render_tools_is_named_with_what_to_do(at_talks: Path, capsys: Capture) -> None:
    path = Path("policy/chat_template.jinja")
    path.write_text("{% if tools %}{{ raise_exception('no tools here') }}{% endif %}" + path.read_text())
    line = refused(capsys, "sft", "sft.yaml", "--run", "A", *KEYS)
    assert "no tools here" in line
