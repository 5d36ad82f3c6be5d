"""When a run is invalid: over which steps it is judged, and what is only counted."""

from typing import Any

import pytest

from sgcd.measure.credit_warnings import credit_warnings
from sgcd.measure.validity import fruitless_reason, newest_invalid_reasons, run_invalid_reasons
from sgcd.storage.metrics import StepMetrics

WEIGHTS = "weights: inert, 0.4 % of 1000 creditable tokens above weight one"


def row(step: int, **credit: Any) -> StepMetrics:
    healthy = {
        "weighs": True,
        "scored": 8,
        "creditable": 100,
        "credited": 10,
        "tokens": 120,
        "divergence": {"max": 0.5},
    }
    return StepMetrics.from_json({"step": step, "foreign": 0, "in_graph": 0, "credit": {**healthy, **credit}})


def run(steps: int, **credit: Any) -> list[StepMetrics]:
    return [row(step, **credit) for step in range(1, steps + 1)]


def test_ten_steps_are_judged_together() -> None:
    inert = [row(step, credited=4 if step == 3 else 0) for step in range(1, 11)]
    assert newest_invalid_reasons(inert[:9], is_last=False) == []
    assert newest_invalid_reasons(inert, is_last=False) == [WEIGHTS]
    assert newest_invalid_reasons([row(0), *inert], is_last=False) == [WEIGHTS]  # what is older is forgotten
    assert newest_invalid_reasons([*inert[1:], row(11, credited=5)], is_last=False) == []  # 9 of 1000
    assert run_invalid_reasons([row(0), *inert, *run(30)]) == [f"{WEIGHTS} (steps 1 to 10)"]


def test_a_shorter_run_is_judged_as_a_whole() -> None:
    assert newest_invalid_reasons(run(3, credited=0), is_last=False) == []
    assert newest_invalid_reasons(run(3, credited=0), is_last=True) == [
        "weights: inert, 0 % of 300 creditable tokens above weight one"
    ]
    assert run_invalid_reasons(run(1, credited=0)) == [
        "weights: inert, 0 % of 100 creditable tokens above weight one (step 1)"
    ]


def test_a_method_without_a_teacher_credits_as_little_and_as_much_as_it_likes() -> None:
    alone: dict[str, Any] = {"scored": 0, "divergence": {}}
    assert run_invalid_reasons(run(10, credited=0, **alone)) == []
    assert credit_warnings(run(10, credited=90)) != credit_warnings(run(10, credited=90, **alone)) == []


def test_half_a_percent_is_enough() -> None:
    assert newest_invalid_reasons([row(1, creditable=1000, credited=5)], is_last=True) == []
    assert newest_invalid_reasons([row(1, creditable=1000, credited=4)], is_last=True) != []


@pytest.mark.parametrize("credit", [{"weighs": False}, {"creditable": 0}])
def test_nothing_is_judged_without_gamma_or_without_references(credit: dict[str, Any]) -> None:
    zero = {"credited": 0, "divergence": {"max": 0.0}, **credit}
    assert newest_invalid_reasons(run(10, **zero), is_last=True) == []
    assert newest_invalid_reasons([*run(9, **zero), row(10)], is_last=True) == []
    assert newest_invalid_reasons([StepMetrics(step=1)], is_last=True) == []  # a method that has no credit to tell of


def test_features_are_zero_only_when_all_are() -> None:
    zero = run(10, credited=0, divergence={"max": 0.0})
    assert newest_invalid_reasons(zero, is_last=False) == ["features: the divergence of 1200 tokens is zero"]
    assert newest_invalid_reasons([*zero[:9], row(10)], is_last=False) == []
    assert newest_invalid_reasons(run(10, credited=0, divergence={"max": None}), is_last=False) == [
        "weights: inert, 0 % of 1000 creditable tokens above weight one"
    ]


def test_credit_that_is_everywhere_is_warned_of() -> None:
    told = "credit is not localised: 41 % of creditable tokens above weight one"
    assert credit_warnings([*run(9), *run(10, credited=41)]) == [told]
    assert credit_warnings(run(10, credited=40)) == credit_warnings([]) == credit_warnings([StepMetrics(step=1)]) == []
    assert newest_invalid_reasons(run(10, credited=90), is_last=True) == []


def test_once_is_too_often_for_a_foreign_token_and_for_a_teacher_in_the_graph() -> None:
    bad = row(2).model_copy(update={"foreign": 3, "in_graph": 1})
    reasons = ["mask: it covers 3 tokens that the policy did not write"]
    reasons += ["graph: 1 row of another context than the policy's in the loss"]
    assert newest_invalid_reasons([row(1), bad], is_last=False) == reasons
    assert run_invalid_reasons([row(1), bad, *run(20)]) == [f"{reason} (step 2)" for reason in reasons]


def played(skipped: str = "no mixed group", **counts: Any) -> StepMetrics:
    return StepMetrics.from_json({"step": 1, "rollouts": 8, "skipped": skipped, **counts})


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], ""),
        ([played(), played("")], ""),
        ([played(broken=4, causes={"open: OSError: full": 4}), played("")], ""),
        (
            [
                played(broken=8, causes={"open: OSError: full": 8}),
                played("", broken=1, causes={"open: OSError: no": 1}),
            ],
            "9 of 16 rollouts broke, 9 of them by open: OSError; the first text: open: OSError: full; mend that",
        ),
        (
            [played(uniform_failure=4)] * 2,
            "none of 2 steps moved the policy: no mixed group (success .0 on all tasks); start with supervised "
            "training on solved tasks, or take easier tasks",
        ),
        (
            [played(uniform_success=4)],
            "none of 1 step moved the policy: no mixed group (success 1.0 on all tasks); take harder tasks",
        ),
        (
            [played(uniform_success=1, uniform_failure=1)],
            "none of 1 step moved the policy: no mixed group; take tasks of middling difficulty, larger groups, or a "
            "higher sampler.temperature",
        ),
        ([played("the loss was not finite", mixed=1)], "none of 1 step moved the policy: the loss was not finite"),
    ],
)
def test_a_run_that_moved_nothing_or_broke_is_fruitless(rows: list[StepMetrics], reason: str) -> None:
    assert fruitless_reason(rows) == reason
