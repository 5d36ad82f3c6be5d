"""The benchmark's own arithmetic: what passes, and that both sides of a comparison are the same thing."""

import json
from typing import Any

import pytest
import torch

from sgcd.bench.arms import (
    build_head_inputs,
    run_naive,
    run_product,
    score_divergence,
    score_divergence_in_full,
    score_two_contexts,
)
from sgcd.bench.timing import at_least, at_most, measure_peak_memory, min_cpu_seconds, summarize_cases
from sgcd.cli import main


def test_a_case_passes_within_a_tenth_of_its_target() -> None:
    assert [at_most("", found, 1.0).is_passed for found in (0.5, 1.09, 1.11)] == [True, True, False]
    assert [at_least("", found, 10).is_passed for found in (20, 9.1, 8.9)] == [True, True, False]
    assert at_most("", None, 1.0).is_passed is None


def test_a_figure_is_that_of_the_case_nearest_to_failing() -> None:
    told = summarize_cases("", [at_most("a", 1.0, 2.0), at_least("b", 5.2, 5), at_least("c", None, 3)])
    assert (told["figure"], told["target"], told["pass"]) == (5.2, 5, True)
    assert [case["pass"] for case in told["cases"]] == [True, True, None]
    assert summarize_cases("", [at_least("c", None, 3)])["pass"] is None
    assert summarize_cases("", [at_most("a", 3.0, 2.0), at_least("b", 9, 1)])["pass"] is False


def test_what_is_compared_is_the_same() -> None:
    given = build_head_inputs(24, 32, 3000, dtype=torch.float32)
    z = given.student @ given.head.weight.t()
    assert 2 < float(z.std()) < 6
    assert float((z.topk(1).values[:, 0] - z.topk(9).values[:, 8]).median()) > 1
    (d, ids), (expected, same) = score_divergence(given), score_divergence_in_full(given, torch.float64)
    assert torch.equal(ids, same)
    assert torch.allclose(d.double(), expected, atol=1e-5)
    top, student, *_ = run_naive(given, 24)
    assert torch.allclose(student.sort().values, z.log_softmax(-1).gather(1, ids).sort().values, atol=1e-4)
    assert top.shape == (24, 20)
    run_product(given, 2**20)
    score_two_contexts(given, 2**20)


def test_arms_are_run_in_turn_and_warm_rounds_do_not_count() -> None:
    seen: list[str] = []
    took = min_cpu_seconds({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2, warmup=1)
    assert seen == ["a", "b"] * 3
    assert took.keys() == {"a", "b"}


def test_a_peak_is_what_was_held_at_once() -> None:
    held: list[Any] = []
    assert measure_peak_memory(lambda: held.append(torch.ones(2**25))) > 1.2e8


def test_the_verb_says_each_figure_with_its_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sgcd.bench import scoring, sharing, step

    monkeypatch.setattr(
        scoring,
        "measure_memory",
        lambda: {"B3": summarize_cases("memory", [at_least("a", 60, 50), at_most("b", None, 1)])},
    )
    monkeypatch.setattr(scoring, "measure_errors", dict)
    monkeypatch.setattr(
        scoring, "measure_speed", lambda *_: {"B1": summarize_cases("speed", [at_most("a", 3.0, 1.25)])}
    )
    monkeypatch.setattr(step, "measure_overhead", lambda _: {})
    monkeypatch.setattr(sharing, "measure_sharing", lambda _: {})
    assert main(["bench", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [told["B1"][key] for key in ("figure", "target", "pass")] == [3.0, 1.25, False]
    assert told["B3"]["pass"]
    assert main(["bench"]) == 0
    said = capsys.readouterr().out
    assert "a: 3 (at most 1.25 wanted) FAIL" in said
    assert "b: not measured (at most 1 wanted)" in said
