"""The lab's oracles: a reference from a play without an error, and weights on the turns that decide."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sgcd.assemble import reference_builder_class
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.methods import CreditInputs
from sgcd.errors import RecipeError
from sgcd.lab import policy
from sgcd.lab.demonstrate import NOISY, PERFECT, ErrorRates, Script, encode_demonstration, play_script
from sgcd.lab.long_desk.demonstrate import build_desk_chat, play_desk_tools
from sgcd.lab.long_desk.world import REFUSE, desk_requests, generate_desk_tasks
from sgcd.lab.oracle import OracleReferenceBuilder, OracleWeights, judge_turns
from sgcd.lab.settings import LongDeskSettings
from sgcd.lab.tasks import generate_tasks
from sgcd.recipe.load import lab_recipe_path, load_recipe
from sgcd.records import Group, Rollout, Task, Verdict

CHAT = policy.build_lab_chat()


def played(task: Task, errors: ErrorRates, seed: int) -> Rollout:
    script = Script(task, errors, np.random.default_rng(seed))
    rollout = encode_demonstration(asyncio.run(play_script(task, script)), CHAT)
    turns = tuple(replace(turn, text=CHAT.visible_text(rollout, turn)) for turn in rollout.turns)
    return replace(rollout, sibling=seed, turns=turns)


@pytest.mark.parametrize("horizon", [1, 2])
def test_a_play_without_an_error_decides_rightly_in_every_turn(horizon: int) -> None:
    for task in generate_tasks("train", horizon)[:6]:
        rollout = played(task, PERFECT, 0)
        assert rollout.success and all(judge_turns(task, rollout))


def test_a_failure_has_a_wrong_turn_and_its_weights_lie_there() -> None:
    num_failures = 0
    for task in generate_tasks("train")[:14]:
        for seed in range(3):
            rollout = played(task, NOISY, seed)
            judged = judge_turns(task, rollout)
            if rollout.success:
                continue
            num_failures += 1
            assert not all(judged)
            inputs = CreditInputs(rollout, -1.0, {}, group=Group(task, (rollout,)))
            weight = OracleWeights().signal(inputs)
            for turn, is_right in zip(rollout.turns, judged, strict=True):
                assert (weight[turn.start : turn.stop] == (1.0 if is_right else 2.0)).all()
            praised = OracleWeights().signal(replace(inputs, advantage=1.0))
            assert ((weight == 2) & (praised == 2)).sum() == 0
    assert num_failures > 10


def test_the_oracle_reference_is_written_without_any_success() -> None:
    task = next(task for task in generate_tasks("train") if task.category == "action")
    failures = [rollout for seed in range(30) if not (rollout := played(task, NOISY, seed)).success][:2]
    group = Group(task, tuple(failures))
    assert len(failures) == 2
    builder = OracleReferenceBuilder(BuiltInWriter(), CHAT, 4000, 1)
    result = asyncio.run(builder.build(group))
    assert result.reference and "Successful attempts" in result.reference.text
    assert [len(mask) for mask in builder.tokens_outside_literals(group, result)] == [
        len(one.response) for one in failures
    ]


def test_the_oracle_reference_at_the_long_desk_compares_with_right_requests() -> None:
    world = LongDeskSettings(name="long_desk", thinking=0)
    task = generate_desk_tasks("train", world)[0]
    requests = desk_requests(task)
    wrong = [request.right_tool for request in requests]
    wrong[-1] = REFUSE if wrong[-1] != REFUSE else f"{requests[-1].verb}_trip"
    chat = build_desk_chat()
    failure = encode_demonstration(play_desk_tools(task, requests, wrong), chat)
    builder = OracleReferenceBuilder(BuiltInWriter(), chat, 4000, 1)
    result = asyncio.run(builder.build(Group(task, (replace(failure, verdict=Verdict(0.0, success=False)),))))
    assert result.reference and result.reference.text.splitlines()[0].startswith("Successful attempts call")


def test_the_oracle_is_refused_outside_the_lab() -> None:
    recipe = load_recipe(
        lab_recipe_path("grpo"),
        ["environment={name: textworld}", "reference.writer={name: oracle}", "method={name: sgcd}"],
    )
    with pytest.raises(RecipeError, match=r"reference\.writer: oracle knows the truth of the lab alone.*got textworld"):
        reference_builder_class(recipe)
