"""sgcd collect as it is typed: successes as conversations, none of them twice, and a start that learns from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.misbehaving import Server
from helpers.simulated_users import lab_agent
from sgcd.chat import Chat
from sgcd.cli import main
from sgcd.lab.policy import build_lab_chat
from sgcd.learn.supervised import collect as collecting
from sgcd.learn.supervised.conversations import read_conversations
from sgcd.learn.supervised.encode import encode_conversation, encode_conversations
from sgcd.records import Rollout
from sgcd.storage.manifest import RowFiles

Capture = pytest.CaptureFixture[str]
LAB = str(Path(__file__).parents[2] / "recipes/lab/grpo.yaml")


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def keys(path: str) -> list[tuple[str, int]]:
    return sorted((row["task"], row["trial"]) for row in lines(path))


@pytest.mark.slow
def test_a_policys_successes_are_kept_once_however_it_is_stopped(
    at_desk: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--tasks", "4", "--trials", "8"]
    assert main(["collect", "recipe.yaml", "--run", "A", *few, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    rows = lines("A/trials.jsonl")
    assert len(rows) == counts["trials"] == 32
    won = [(row["task"], row["trial"]) for row in rows if row["success"]]
    assert keys("A/demonstrations.jsonl") == sorted(won)
    assert 0 < len(won) == counts["successes"] < 32
    append = RowFiles.append

    def stopped(self: RowFiles, name: str, rows: Any) -> None:
        if name == collecting.TRIALS_FILE:  # the successes are on disk, the trials are not
            raise KeyboardInterrupt
        append(self, name, rows)

    with monkeypatch.context() as patch:
        patch.setattr(RowFiles, "append", stopped)
        assert main(["collect", "recipe.yaml", "--run", "B", *few]) == 130
    assert "sgcd collect --run B --resume" in capsys.readouterr().err
    assert keys("B/demonstrations.jsonl")
    assert main(["collect", "--run", "B", "--resume"]) == 0
    for name in ("demonstrations.jsonl", "trials.jsonl"):
        assert keys(f"B/{name}") == keys(f"A/{name}")
    assert main(["collect", "--run", "B", "--resume"]) == 0  # nothing is left to play
    assert keys("B/trials.jsonl") == keys("A/trials.jsonl")
    assert main(["train", "--run", "B", "--resume"]) == 2
    assert main(["collect", "--run", "C"]) == 2
    assert "sgcd collect RECIPE --run C" in capsys.readouterr().err


@pytest.mark.usefixtures("at_desk")
def test_no_success_is_no_result(capsys: Capture) -> None:
    assert main(["collect", "recipe.yaml", "--run", "A", "--tasks", "1", "--trials", "1", "environment.success=9"]) == 1
    assert "none of 1 trials succeeded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_chat_models_successes_can_be_learned_from(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server(lab_agent) as server:
        model = "evaluation.model=" + json.dumps({"base_url": server.url, "model": "clerk"})
        assert main(["collect", LAB, model, "--run", "A", "--tasks", "4", "--trials", "1"]) == 0
    assert "4 of 4 trials succeeded, on 4 of 4 tasks" in capsys.readouterr().out
    examples = encode_conversations(read_conversations(Path("A/demonstrations.jsonl")), build_lab_chat(), 1024)
    assert (len(examples.rollouts), examples.left_out) == (4, {})


@pytest.mark.slow
def test_a_policys_own_turns_are_learned_as_it_sampled_them(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sampled: dict[tuple[str, int], Rollout] = {}
    write = collecting.write_messages

    def kept(rollout: Rollout, chat: Chat | None) -> Any:
        sampled[rollout.task, rollout.sibling] = rollout
        return write(rollout, chat)

    monkeypatch.setattr(collecting, "write_messages", kept)
    assert main(["collect", LAB, "--run", "A", "--tasks", "60", "--trials", "2"]) == 0
    chat = build_lab_chat()
    for row, talk in zip(
        lines("A/demonstrations.jsonl"), read_conversations(Path("A/demonstrations.jsonl")), strict=True
    ):
        ours, own = encode_conversation(talk, chat), sampled[row["task"], row["trial"]]
        assert np.array_equal(ours.prompt, own.prompt)
        assert np.array_equal(ours.response, own.response[: len(ours.response)])
        learned = own.response_mask[: len(ours.response)].copy()
        for turn in own.turns:
            learned[turn.start : turn.stop] &= not turn.malformed  # such a turn is only read
        assert np.array_equal(ours.response_mask, learned)


@pytest.mark.slow
def test_a_start_from_a_policys_own_successes_raises_success_in_the_lab(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["collect", LAB, "--run", "A", "--tasks", "300", "--trials", "4"]) == 0
    data = "supervised={data: [A], lr: 3e-4, epochs: 2}"
    assert main(["sft", LAB, "--run", "B", data, "evaluation={every: 999, tasks: 200, trials: 3}", "--json"]) == 0
    change = json.loads(capsys.readouterr().out.splitlines()[-1])["change"]
    assert change["modes"]["sampled"]["overall"]["difference"]["low"] > 0
