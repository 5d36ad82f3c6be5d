"""The warm starts that ship: all four are there, small, at home in the lab's vocabulary, and past the gate."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from sgcd.lab import policy, words
from sgcd.lab.warm_start_checks import MIN_ARGUMENT_PROBABILITY, MIN_CATEGORY_SUCCESS
from sgcd.lab.warm_starts import WARM_STARTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", WARM_STARTS)
def test_a_start_ships_small_and_past_its_gate(name: str) -> None:
    folder = policy.STARTS_DIR / name
    gate = json.loads((folder / "gate.json").read_text())
    assert (folder / "model.safetensors").stat().st_size < 3e6
    assert (
        gate["passes"]
        and min(gate["arguments"].values()) > MIN_ARGUMENT_PROBABILITY
        and min(gate["categories"].values()) > MIN_CATEGORY_SUCCESS
    )
    assert 0.3 <= gate["sampled"]["value"] <= 0.5
    assert max(gate["shares"]["action"], gate["shares"]["no_action"]) < gate["sampled"]["value"]
    assert gate["reference"]["own - without"]["low"] > 0 and gate["reference"]["own - shuffled"]["low"] > 0


@pytest.mark.parametrize("name", [*WARM_STARTS, "plain-grpo"])
def test_a_start_speaks_the_words_of_the_lab(name: str) -> None:
    told = json.loads((policy.STARTS_DIR / name / "tokenizer.json").read_text())
    assert told["model"]["vocab"] == {word: index for index, word in enumerate(words.build_vocabulary())}
    assert (policy.STARTS_DIR / name / "chat_template.jinja").read_text() == policy.LAB_CHAT_TEMPLATE


def test_the_table_in_the_log_is_the_one_that_the_gates_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    starts = import_module("starts")
    log = starts.LOG_PATH.read_text(encoding="utf-8")
    assert log.split(starts.BEGIN)[1].split(starts.END)[0].strip() == starts.table()
