"""Teachers that are not the policy as it is: the moving average, another policy, and what a sibling's teacher reads."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from helpers.group import DONE, LAB, SORRY, call, pair, rollout, siblings
from helpers.tiny_policy import build_context, make_context_sensitive, model, recipe
from helpers.training_runs import contents, train
from sgcd.assemble import assemble
from sgcd.cli import main
from sgcd.cli.recipe_lines import describe_teachers
from sgcd.contrast.reference import ReferenceBuilder
from sgcd.contrast.writers.built_in import BuiltInWriter
from sgcd.credit.methods import build_method
from sgcd.credit_records import Teacher
from sgcd.errors import FolderError, PolicyError
from sgcd.learn.policy.load import Policy, save_policy
from sgcd.learn.policy.teacher_policies import MovingAverage, TeacherPolicies
from sgcd.learn.scoring.teacher_contexts import (
    refer_to_answers,
    refer_to_siblings,
    refer_to_skill,
    refer_without_self,
)
from sgcd.learn.training.optimizer import build_optimizer
from sgcd.recipe.load import load_recipe
from sgcd.records import Group, Verdict

SDPO: dict[str, Any] = {"name": "sdpo", "k": 5, "context": "none", "reward_coefficient": 1}


def weights_of(policy: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in policy.named_parameters()}


@profile(max_examples=8, deadline=None)
@given(decay=st.floats(0.01, 0.99), moves=st.lists(st.floats(-1, 1), max_size=4), half=st.booleans())
def test_the_average_keeps_its_share_at_each_step(decay: float, moves: list[float], half: bool) -> None:
    """avg <- decay avg + (1 - decay) w, in float32, and the policy is as it was after the average has scored."""
    policy = model(torch.bfloat16 if half else torch.float32)
    optimizer, average = build_optimizer(policy, recipe().optimizer), MovingAverage(policy, decay)
    [name, weight] = next(iter(policy.named_parameters()))
    expected = weight.detach().double().numpy(force=True).copy() if not half else weight.detach().double().numpy()
    for move in moves:
        with torch.no_grad():
            optimizer.masters[weight] += move
        optimizer.copy_to_model()
        average.update(optimizer)
        expected = decay * expected + (1 - decay) * optimizer.masters[weight].detach().double().numpy()
    before = weights_of(policy)
    with average.active() as active:
        found = dict(active.named_parameters())[name].detach().double().numpy()
        assert np.allclose(found, expected, atol=0.05 if half else 1e-5)
    assert all(torch.equal(value, before[key]) for key, value in weights_of(policy).items())


def test_each_model_of_a_teacher_is_the_one_that_it_names() -> None:
    policy, outside = model(), model(seed=9)
    average = MovingAverage(policy, 0.5)
    policies = TeacherPolicies(average=average, outside=outside)
    start = weights_of(policy)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 1
    with policies.active("current", policy) as current, policies.active("outside", policy) as other:
        assert (current, other) == (policy, outside)
    with policies.active("average", policy) as averaged:
        assert all(torch.equal(value, start[key]) for key, value in weights_of(averaged).items())


def test_an_average_is_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    saved, loaded = MovingAverage(model(), 0.9), MovingAverage(model(seed=8), 0.9)
    saved.save(tmp_path)
    loaded.load(tmp_path)
    with saved.active() as policy:
        before = weights_of(policy)
    with loaded.active() as policy:
        assert all(torch.equal(value, before[key]) for key, value in weights_of(policy).items())
    (tmp_path / "average.safetensors").unlink()
    with pytest.raises(FolderError, match="moving average of model"):
        loaded.load(tmp_path)


@pytest.mark.slow
def test_a_run_with_a_moving_average_resumes_to_the_byte(tmp_path: Path) -> None:
    every: dict[str, Any] = {"method": SDPO, "checkpoint": {"every": 1}}
    train(tmp_path / "whole", steps=3, **every)
    train(tmp_path / "stopped", steps=2, **every)
    train(tmp_path / "stopped", steps=3, **every)
    whole, stopped = contents(tmp_path / "whole"), contents(tmp_path / "stopped")
    average = "checkpoints/0003/average.safetensors"
    assert whole[average] == stopped[average] != whole["checkpoints/0002/average.safetensors"]
    assert whole["policy/model.safetensors"] == stopped["policy/model.safetensors"]


@pytest.mark.slow
def test_an_outside_teacher_scores_and_stays_as_it_was(tmp_path: Path) -> None:
    outside = make_context_sensitive(model(seed=9))
    before = weights_of(outside)

    def prepare(context: Any) -> None:
        object.__setattr__(context, "teacher_policies", TeacherPolicies(outside=outside))

    train(tmp_path / "run", None, prepare, steps=1, method={"name": "opd", "k": 5, "teacher": "outside"})
    assert all(torch.equal(value, before[key]) for key, value in weights_of(outside).items())


def test_what_only_plays_needs_no_outside_teacher() -> None:
    keys = ["method={name: opd, teacher: outside}", "teacher.start=nowhere"]
    recipe = load_recipe(Path("recipes/lab/grpo.yaml"), keys)
    context = assemble(recipe, trains=False)
    context.model_thread.shutdown()
    assert context.teacher_policies == TeacherPolicies()
    with pytest.raises(PolicyError, match=r"^teacher\.start: nowhere is not a folder here"):
        assemble(recipe)


# -- contexts ---------------------------------------------------------------------------------------------------------


def three() -> Group:
    """Two that checked, the second with other words, and one that did not."""
    first, failed = pair().rollouts
    other = rollout([call("find_user", "name", "mia"), SORRY], ["user mia tier gold booking b12"], True)
    return siblings(first, failed, other)


def texts(references: Any) -> list[str | None]:
    return [reference and reference.text for reference in references]


def test_a_sibling_s_success_is_shown_whole_and_never_the_rollout_s_own() -> None:
    whole = (
        "An attempt that succeeded :\nsay : one moment please\ncall : find_user name=mia\n"
        "heard : user mia tier gold booking b12\n"
    )
    first = (
        f"{whole}say : one moment please\ncall : get_booking booking=b12\n"
        f"heard : booking b12 cabin basic insured no city oslo\nsay : {SORRY}"
    )
    assert texts(refer_to_siblings(three(), LAB)) == [f"{whole}say : {SORRY}", first, first]
    assert texts(refer_to_siblings(pair(), LAB)) == [None, first]


def test_an_answer_leaks_that_of_another_success() -> None:
    assert texts(refer_to_answers(pair(), LAB)) == [None, f"the final answer is : {SORRY} ."]
    good, bad = (replace(each, verdict=Verdict(float(at), bool(at))) for at, each in enumerate(pair().rollouts))
    swapped = siblings(good, bad)
    assert texts(refer_to_answers(swapped, LAB)) == [f"the final answer is : {DONE} .", None]


def test_a_skill_is_the_same_text_for_all() -> None:
    assert texts(refer_to_skill(pair(), "look first")) == ["look first"] * 2


def test_a_reference_without_the_rollout_is_written_from_the_others() -> None:
    builder = ReferenceBuilder(BuiltInWriter(), LAB, 4000, 1)
    found = texts(asyncio.run(refer_without_self(three(), builder)))
    assert found[1] is None  # without the only failure nothing parts them
    assert found[0] and found[2] and found[0] != found[2]
    for own in (0, 2):
        others = siblings(*(each for at, each in enumerate(three().rollouts) if at != own))
        result = asyncio.run(builder.build(others))
        assert result.reference and result.reference.text == found[own]


# -- refusals ---------------------------------------------------------------------------------------------------------

LAB_RUN = ("recipes/lab/grpo.yaml", "steps=1")


@pytest.mark.parametrize(
    ("method", "more", "line"),
    [
        ("{name: opd, teacher: outside}", (), "teacher.start: the method's teacher is another policy (outside)"),
        ("{name: opd, context: skill}", (), "teacher.skill: the method's teacher reads a skill text; expected a text"),
        ("{name: opd, context: skill}", ("teacher.skill=nowhere.md",), "nowhere.md is no file"),
        ("{name: sdpo, teacher: current, context: none}", (), "is the student itself and never disagrees"),
        ("{name: sgcd, context: none}", (), "is the student itself and never disagrees"),
        ("{name: sgcd, context: neutral, compare_with: swapped}", (), "method.compare_with: swapped compares"),
        ("{name: sdpo}", ("teacher.decay=1",), "teacher.decay: expected a number, above 0 and below 1, got 1"),
        ("{name: sdpo, teacher: middle}", (), "method.teacher: expected one of current, average, initial"),
    ],
)
def test_a_teacher_without_meaning_is_one_line(
    capsys: pytest.CaptureFixture[str], method: str, more: tuple[str, ...], line: str
) -> None:
    assert main(["check", *LAB_RUN, f"method={method}", *more]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert line in said


def test_check_names_the_teachers() -> None:
    for name, described in (
        ("collapse-sdpo", "its moving average, which keeps 0.95 of itself in a step, context answer"),
        ("sgcd", "the policy, context reference"),
        ("grpo", ""),
    ):
        recipe = load_recipe(Path(f"recipes/lab/{name}.yaml"))
        context: Any = SimpleNamespace(method=build_method(recipe.method))
        assert describe_teachers(recipe, context) == described


def test_a_teacher_with_another_vocabulary_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = build_context(tmp_path / "run", recipe())
    save_policy(Policy(context.policy.model, LAB), tmp_path / "other", {})
    file = tmp_path / "other" / "tokenizer.json"
    file.write_text(file.read_text().replace('"mia"', '"mib"'))
    keys = ("method={name: opd, teacher: outside}", f"teacher.start={tmp_path / 'other'}")
    assert main(["train", *LAB_RUN, *keys, "--run", str(tmp_path / "A")]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "has another tokenizer than lab:plain" in said and "give a policy with the same tokenizer" in said
    assert not (tmp_path / "A").exists()
    assert Teacher("none", "outside") in context_needs("{name: opd, context: none, teacher: outside}")


def context_needs(method: str) -> Any:
    needs = build_method(load_recipe(Path("recipes/lab/grpo.yaml"), [f"method={method}"]).method).needs
    assert needs is not None
    return needs.teachers
