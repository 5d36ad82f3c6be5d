"""What `sgcd check --cost` says of a step, and whether its ratios are those of real steps."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from sgcd.bench.step import build_small_qwen, build_step_arms
from sgcd.bench.timing import min_cpu_seconds
from sgcd.cli import main
from sgcd.errors import RecipeError
from sgcd.recipe.load import load_recipe
from sgcd.study.step_cost import (
    CostInputs,
    describe_step_cost,
    estimate_grpo_cost,
    estimate_step_cost,
    read_cost_inputs,
)

LAB = Path("recipes/lab/sgcd.yaml")
INPUTS = CostInputs(
    sampled=100,
    read=1000,
    prompt=300,
    response=200,
    written=150,
    turns=5,
    tool=0.5,
    reference=100,
    writer=3,
    mixed=0.25,
)
KEYS = ["siblings={groups: 2, group_size: 4, rounds: 6}", "sampler.slots=16", "surrogate.kl=0"]


def seconds(*keys: str) -> dict[str, float]:
    return asdict(estimate_step_cost(load_recipe(LAB, [*KEYS, *keys]), INPUTS))


def test_each_part_is_what_its_figures_say():
    """8 groups of 4 are played for 2 that are mixed, in two cohorts of 16; 8 rollouts of 500 tokens are read."""
    assert seconds() == {
        "sampling": 32 * 150 / 100,
        "tools": 2 * 5 * 0.5,
        "references": 3,
        "teachers": 8 * (500 + 100) / 1000,
        "student": 0,
        "update": 3 * 8 * 500 / 1000,
    }


@pytest.mark.parametrize(
    ("keys", "part", "passes"),
    [
        (["engine=verl"], "student", 1),
        (["surrogate.kl=0.01"], "student", 1),
        (["method={name: grsd}"], "student", 1),
        (["optimizer.updates=2"], "update", 6),
        (["policy.lora.rank=4"], "update", 2),
        (["policy.gradient_checkpointing=true"], "update", 4),
        (["method={name: grpo}"], "teachers", 0),
        (["method={name: entropy}"], "references", 0),
    ],
)
def test_what_a_recipe_adds_in_passes_over_its_rollouts(keys: list[str], part: str, passes: int) -> None:
    assert seconds(*keys)[part] == pytest.approx(passes * 4.0)


def test_rounds_limit_what_is_played():
    assert seconds("siblings.rounds=1")["sampling"] == 8 * 150 / 100


def test_the_ratio_is_to_the_same_step_without_a_teacher():
    recipe = load_recipe(LAB, KEYS)
    described = describe_step_cost(recipe, INPUTS)
    ratio = estimate_step_cost(recipe, INPUTS).total / estimate_grpo_cost(recipe, INPUTS).total
    assert described.startswith(f"about 72.8 s a step, {ratio:.2f} times GRPO's: sampling 48 s, tools 5 s")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{sampled: 2000}", "--cost: read: field required; prompt: field required"),
        ("{sampled: -1, read: 1, prompt: 1, response: 1}", "--cost: sampled: input should be greater than 0"),
        ("fast", "--cost: expected a mapping"),
    ],
)
def test_figures_that_say_nothing_are_refused(words: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        read_cost_inputs(words)
    assert str(refused.value).startswith(message)


def test_check_prints_the_cost_of_a_step_on_verl(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(LAB), "engine=verl", "verl.prompt_tokens=512", "--cost"]
    figures = "{sampled: 2000, read: 30000, prompt: 300, response: 200}"
    assert main([*words, figures]) == 0
    assert "times GRPO's: sampling 6.4 s, teachers 0.747 s, student 0.533 s, update 1.6 s" in capsys.readouterr().out
    assert main([*words, figures, "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert cost["step"]["teachers"] > cost["grpo"]["teachers"] == 0


@pytest.mark.slow
def test_the_ratios_are_those_of_steps_on_the_cpu():
    """A step of SGCD over one of GRPO, and one of GRPO over a forward pass, as the estimate has them."""
    arms, _ = build_step_arms(build_small_qwen(), 1, 4, 128)
    measured = min_cpu_seconds({name: arms[name] for name in ("grpo", "sgcd", "teacher")}, 2, warmup=1)
    recipe = load_recipe(LAB, ["surrogate.kl=0", "scoring.share=false"])
    figures = CostInputs(sampled=1e12, read=1000, prompt=100, response=200, reference=30)
    cost = estimate_step_cost(recipe, figures)
    assert measured["sgcd"] / measured["grpo"] == pytest.approx((cost.teachers + cost.update) / cost.update, rel=0.15)
    assert measured["grpo"] / measured["teacher"] == pytest.approx(cost.update / cost.teachers, rel=0.3)
