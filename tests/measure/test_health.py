"""Health speaks when there is something to say, in whole sentences, and is silent otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from sgcd.measure.compare import RunEvaluation, compare_evaluations
from sgcd.measure.health import fallen_category_warnings, run_warnings, step_warnings
from sgcd.show.tables import describe_change
from sgcd.storage.metrics import StepMetrics

NONE = {"successes": 0, "without_tool": 0, "without_tool_share": None, "tools_per_success": None}


def audit(successes: int, without_tool: int, tools: float | None) -> dict[str, Any]:
    return {**NONE, "successes": successes, "without_tool": without_tool, "tools_per_success": tools}


def row(**changes: Any) -> StepMetrics:
    """A healthy step: half of the tasks mixed, 64 rollouts."""
    healthy: dict[str, Any] = {
        "step": 1,
        "tasks": 8,
        "kept": 4,
        "mixed": 4,
        "uniform_success": 1,
        "uniform_failure": 3,
        "rollouts": 64,
        "broken": 0,
        "causes": {},
        "success": 0.4,
        "calls": 100,
        "calls_in_error": 0.1,
        "malformed_turns": 2,
        "cuts": {},
        "endings": {"answered": 60, "turn_limit": 4},
        "audit": {"information": audit(9, 0, 2.5), "action": audit(9, 0, 3.0)},
        "skipped": "",
        "clip_share": 0.0,
        "entropy": 0.8,
        "sampler_gap_mean": 1e-6,
    }
    return StepMetrics.from_json({**healthy, **changes})


def test_a_healthy_step_and_a_healthy_run_say_nothing() -> None:
    assert step_warnings(row()) == []
    assert run_warnings([row()] * 40) == []
    assert run_warnings([]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"tasks": 32, "uniform_success": 0, "uniform_failure": 31},
            "31 of 32 tasks: the siblings' rewards hardly differ, nothing to learn (all fail)",
        ),
        (
            {"tasks": 1, "uniform_success": 1, "uniform_failure": 0},
            "1 of 1 task: the siblings' rewards hardly differ, nothing to learn (all succeed)",
        ),
        (
            {"uniform_success": 2, "uniform_failure": 4},
            "6 of 8 tasks: the siblings' rewards hardly differ, nothing to learn (all succeed in 2, all fail in 4)",
        ),
        ({"endings": {"token_limit": 64}}, "every rollout hits the token limit"),
        ({"endings": {"turn_limit": 32, "answered": 32}}, "32 of 64 rollouts hit the turn limit"),
        ({"cuts": {"observation": 99}}, "observations were cut 99 times in 64 rollouts"),
        (
            {"broken": 3, "causes": {"reply: timed out after 60 s": 3}},
            "3 of 64 rollouts broken: reply: timed out after 60 s",
        ),
        ({"broken": 3, "causes": {"a": 1, "b": 2}}, "3 of 64 rollouts broken: b, and 1 other cause"),
        ({"broken": 6, "causes": {"a": 1, "b": 2, "c": 3}}, "6 of 64 rollouts broken: c, and 2 other causes"),
        ({"sampler_gap_mean": 0.3}, "sampler and trainer disagree by 0.3 nats a token"),
        ({"clip_share": 0.4}, "clip share 40 %"),
        ({"skipped": "the gradient was not finite"}, "step skipped: the gradient was not finite"),
        ({"calls_in_error": 0.6}, "60 % of 100 calls in error"),
        ({"malformed_turns": 20}, "20 turns in 64 rollouts held a call that could not be read"),
        (
            {"audit": {"information": audit(6, 5, 0.3), "action": audit(3, 3, 0.0)}},
            "5 of 6 information successes called no tool",
        ),
    ],
)
def test_what_is_wrong_with_a_step(changes: dict[str, Any], words: str) -> None:
    assert step_warnings(row(**changes)) == [words]


def test_a_step_without_an_update_measured_nothing_and_still_speaks() -> None:
    idle = row(
        tasks=0,
        uniform_failure=0,
        uniform_success=0,
        rollouts=0,
        endings={},
        success=None,
        calls=0,
        calls_in_error=None,
        malformed_turns=0,
        audit={"action": NONE},
        skipped="no mixed group",
        clip_share=None,
        entropy=None,
        sampler_gap_mean=None,
    )
    assert step_warnings(idle) == ["step skipped: no mixed group"]


def test_what_a_run_lost() -> None:
    late = row(
        success=0.2,
        entropy=0.01,
        calls_in_error=0.4,
        audit={"information": audit(9, 9, 0.0), "action": audit(0, 0, None)},
    )
    early = [row()] * 10
    assert run_warnings([*early, *[late] * 10]) == [
        "success in training fell from 40 % to 20 %",
        "calls per information success fell from 2.5 to 0.0",
        "calls in error rose from 10 % to 40 %",
        "entropy fell from 0.8 to 0.01 nats",
    ]
    assert run_warnings([row(), late]) == []


def test_steps_that_moved_nothing_and_what_broke_are_added_up() -> None:
    rows = [
        row(skipped="no mixed group"),
        row(skipped="no mixed group", broken=1, causes={"open: boom": 1}),
        row(skipped="the loss was not finite"),
        row(),
    ]
    assert run_warnings(rows) == [
        "3 of 4 steps moved nothing: no mixed group (2), the loss was not finite (1)",
        "1 of 256 rollouts broken: open: boom",
    ]


def evaluation(step: int, **solved: int) -> RunEvaluation:
    """Twenty tasks a category, of which the first few are solved."""
    rows = [
        {"seed": 0, "step": step, "split": "dev", "mode": "greedy", "temperature": 0.0, "task": f"{category}-{task:02}"}
        | {"category": category, "trial": 0, "success": task < number, "broken": ""}
        for category, number in solved.items()
        for task in range(20)
    ]
    return RunEvaluation("runs/a", rows, {"name": "lab"})


def test_a_category_that_falls_while_the_total_rises_is_named() -> None:
    start = evaluation(0, action=2, information=5, no_action=12)
    change = compare_evaluations([evaluation(9, action=18, information=7, no_action=3)], [start])
    fall = "no_action fell from .60 to .15 while the total rose (.32 to .47), dev tasks, greedy"
    assert fallen_category_warnings(change) == [fall]
    assert describe_change(change) == (
        "Success on held-out dev tasks (greedy) did not clearly change, from .32 to .47 (+.150, 95 % interval "
        f"{change_interval(change)}): action rose from .10 to .90, no_action fell from .60 to .15, information "
        "did not clearly change."
    )


def test_what_fell_in_the_other_mode_stands_in_the_first_sentence_too() -> None:
    def both(one: RunEvaluation, solved: int) -> RunEvaluation:
        sampled = [
            {**row, "mode": "sampled", "temperature": 1.0, "success": int(row["task"][-2:]) < solved}
            for row in one.rows
        ]
        return replace(one, rows=[*one.rows, *sampled])

    start = both(evaluation(0, action=18, no_action=2), 5)
    end = both(evaluation(9, action=4, no_action=3), 15)
    said = describe_change(compare_evaluations([end], [start]))
    assert "(sampled) rose from .25 to .75" in said
    assert said.endswith(" Played greedy, action fell from .90 to .20.")


def change_interval(change: dict[str, Any]) -> str:
    difference = change["modes"]["greedy"]["overall"]["difference"]
    return " to ".join(f"{difference[end]:+.3f}".replace("0.", ".", 1) for end in ("low", "high"))


def test_a_fall_within_the_interval_is_not_named_and_a_total_one_is() -> None:
    start = evaluation(0, action=10, no_action=20)
    assert fallen_category_warnings(compare_evaluations([evaluation(9, action=10, no_action=19)], [start])) == []
    lost = compare_evaluations([evaluation(9, action=12, no_action=0)], [start])
    assert fallen_category_warnings(lost) == [
        "no_action fell from 1.00 to .00 while the total fell (.75 to .30), dev tasks, greedy"
    ]


def test_a_total_that_is_printed_the_same_stayed() -> None:
    start = evaluation(0, action=20, information=0)
    change = compare_evaluations([evaluation(9, action=0, information=20)], [start])
    assert fallen_category_warnings(change) == [
        "action fell from 1.00 to .00 while the total stayed (.50 to .50), dev tasks, greedy"
    ]


def test_a_run_whose_trials_all_broke_claims_nothing() -> None:
    broken = evaluation(9, action=1)
    for trial in broken.rows:
        trial["broken"] = "open: boom"
    change = compare_evaluations([broken], [evaluation(0, action=1)])
    assert fallen_category_warnings(change) == []
    assert describe_change(change) == "Nothing is known of success on held-out dev tasks: every trial broke."


def noisy(reference: dict[str, int], **noise: float) -> StepMetrics:
    sums = {"divergence": 10.0, "extra_weight": 10.0, "end_tokens": 5, **noise}
    return row(reference={"groups": 4, "written": 4, **reference}, credit={"tokens": 100, "noise": sums})


@pytest.mark.parametrize(
    ("reference", "noise", "words"),
    [
        (
            {},
            {"sure_divergence": 6.9},
            "69 % of the divergence is at tokens where the policy is sure: the reference changes marks, not decisions; "
            "look at its place in the prompt (sgcd references show RUN), or train with method.name=grpo",
        ),
        (
            {},
            {"end_extra_weight": 9.0},
            "90 % of the credit is on ends of turns and calls, 5 % of the tokens: they decide nothing; "
            "raise method.min_entropy",
        ),
        (
            {"equal": 3},
            {},
            "12 of 16 references are equal to another task's: they hold nothing of their own task; take a "
            "language model as reference.writer, or tasks whose siblings part in their calls",
        ),
    ],
)
def test_credit_that_is_noise_is_named(reference: dict[str, int], noise: dict[str, float], words: str) -> None:
    assert run_warnings([noisy(reference, **noise)] * 4) == [words]
    assert run_warnings([noisy({"equal": 1}, sure_divergence=2.0, end_extra_weight=5.0)] * 4) == []
