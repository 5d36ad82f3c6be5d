"""The example of a real model: its tasks, demonstrations, judge and recipes, and the model itself where it is."""

import json
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sgcd.act.settings import OwnEnvironmentSettings
from sgcd.contrast.insert import build_teacher_input_ids, encode_reference, write_neutral_text
from sgcd.credit.methods import Needs
from sgcd.learn.policy.load import load_policy
from sgcd.learn.supervised.conversations import read_conversations
from sgcd.learn.supervised.encode import encode_conversation
from sgcd.recipe.load import load_recipe
from sgcd.records import Group, Task
from sgcd.study.score_groups import ScoringOptions, score_groups_under_references

REAL = Path(__file__).parents[2] / "examples/real"
needs_model = pytest.mark.skipif(not (REAL / "model").exists(), reason="SmolLM2-135M-Instruct is not here (make real)")
NAMES = ("sft", "grpo", "sgcd")


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What make_data.py defines."""
    monkeypatch.syspath_prepend(str(REAL))
    yield runpy.run_path(str(REAL / "make_data.py"))
    sys.modules.pop("supply_desk", None)


def judge(task: dict[str, Any], count: int, data: dict[str, Any]) -> float:
    """Replay the calls of a scripted conversation."""
    here = sys.modules["supply_desk"]
    desk = here.SupplyDesk()
    desk.reset(task["item"], task["count"], task["shelf"], task["stock"])
    for message in data["demonstrate"](task, count)["messages"]:
        for call in message.get("tool_calls", ()):
            getattr(desk, call["function"]["name"])(**json.loads(call["function"]["arguments"]))
    return here.judge(desk, task)


def test_every_demonstration_succeeds_and_one_with_the_other_number_fails(data: dict[str, Any]) -> None:
    tasks = [task for split, count in data["NUM_TASKS"].items() for task in data["make_tasks"](split, count)]
    assert len({task["id"] for task in tasks}) == len(tasks) == 380
    assert Counter(task["category"] for task in tasks) == {"enough": 152, "short": 152, "sold_out": 76}
    for task in tasks:
        right, wrong = data["right_count"](task), data["wrong_count"](task)
        assert str(right)[0] != str(wrong)[0]
        assert judge(task, right, data) == 1
        assert judge(task, wrong, data) == 0
        assert judge(task, wrong + 1, data) == 0


def test_training_sees_no_task_of_another_split(data: dict[str, Any]) -> None:
    train, dev, test = (
        {(task["prompt"], task["stock"]) for task in data["make_tasks"](split, count)}
        for split, count in data["NUM_TASKS"].items()
    )
    assert not train & dev | train & test | dev & test


def test_the_recipes_differ_in_what_they_compare_alone(data: dict[str, Any]) -> None:
    sft, grpo, sgcd = (load_recipe(REAL / f"{name}.yaml", is_supervised=name == "sft") for name in NAMES)
    assert sft.environment == grpo.environment == sgcd.environment
    assert grpo.model_copy(update={"method": sgcd.method}) == sgcd
    assert isinstance(sft.environment, OwnEnvironmentSettings)
    assert data["SYSTEM"] == sft.environment.system


@needs_model
@pytest.mark.slow
def test_a_neutral_text_as_reference_moves_no_token_of_the_real_model_by_a_nat(
    data: dict[str, Any], tmp_path: Path
) -> None:
    """Where a reference stands behind the mark of a call, one end mark moves by seven."""
    policy = load_policy(REAL / "model", "float32")
    tasks = [*data["make_tasks"]("test", 4)]
    data["write_lines"](tmp_path / "lines.jsonl", [data["demonstrate"](one, data["right_count"](one)) for one in tasks])
    rollouts = [encode_conversation(line, policy.chat) for line in read_conversations(tmp_path / "lines.jsonl")]
    text = encode_reference(policy.chat, write_neutral_text("Successful attempts call find, then hand_out.\n" * 5))
    scored = score_groups_under_references(
        policy.model,
        [Group(Task("t", "action", {}), tuple(rollouts))],
        [[build_teacher_input_ids(one, text) for one in rollouts]],
        ScoringOptions(Needs(k=100, divergence="reverse_kl")),
    )
    highest = max(float(one.features_under(0).divergence.max()) for one in scored)
    assert 0 < highest < 1, highest
