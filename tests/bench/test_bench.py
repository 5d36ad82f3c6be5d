"""The benchmark's own arithmetic: what passes, and that both sides of a comparison are the same thing."""

import json
from typing import Any

import pytest
import torch

from sgcd.bench.arms import divergences, in_full, inputs, naive, product, two_contexts
from sgcd.bench.figures import figure, least, most
from sgcd.bench.timing import fastest, peak
from sgcd.cli import main


def test_a_case_passes_within_a_tenth_of_its_target() -> None:
    assert [most("", found, 1.0).passed for found in (0.5, 1.09, 1.11)] == [True, True, False]
    assert [least("", found, 10).passed for found in (20, 9.1, 8.9)] == [True, True, False]
    assert most("", None, 1.0).passed is None


def test_a_figure_is_that_of_the_case_nearest_to_failing() -> None:
    told = figure("", [most("a", 1.0, 2.0), least("b", 5.2, 5), least("c", None, 3)])
    assert (told["figure"], told["target"], told["pass"]) == (5.2, 5, True)
    assert [case["pass"] for case in told["cases"]] == [True, True, None]
    assert figure("", [least("c", None, 3)])["pass"] is None
    assert figure("", [most("a", 3.0, 2.0), least("b", 9, 1)])["pass"] is False


def test_what_is_compared_is_the_same() -> None:
    given = inputs(24, 32, 3000, torch.float32)
    z = given.student @ given.head.weight.t()
    assert 2 < float(z.std()) < 6
    assert float((z.topk(1).values[:, 0] - z.topk(9).values[:, 8]).median()) > 1
    (d, ids), (expected, same) = divergences(given), in_full(given, torch.float64)
    assert torch.equal(ids, same)
    assert torch.allclose(d.double(), expected, atol=1e-5)
    top, student, *_ = naive(given, 24)
    assert torch.allclose(student.sort().values, z.log_softmax(-1).gather(1, ids).sort().values, atol=1e-4)
    assert top.shape == (24, 20)
    product(given, 2**20)
    two_contexts(given, 2**20)


def test_arms_are_run_in_turn_and_warm_rounds_do_not_count() -> None:
    seen: list[str] = []
    took = fastest({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2, warm=1)
    assert seen == ["a", "b"] * 3
    assert took.keys() == {"a", "b"}


def test_a_peak_is_what_was_held_at_once() -> None:
    held: list[Any] = []
    assert peak(lambda: held.append(torch.ones(2**25))) > 1.2e8


def test_the_verb_says_each_figure_with_its_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sgcd.bench import scoring, step

    monkeypatch.setattr(scoring, "memory", lambda: {"B3": figure("memory", [least("a", 60, 50), most("b", None, 1)])})
    monkeypatch.setattr(scoring, "errors", dict)
    monkeypatch.setattr(scoring, "speed", lambda *_: {"B1": figure("speed", [most("a", 3.0, 1.25)])})
    monkeypatch.setattr(step, "overhead", lambda _: {})
    assert main(["bench", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [told["B1"][key] for key in ("figure", "target", "pass")] == [3.0, 1.25, False]
    assert told["B3"]["pass"]
    assert main(["bench"]) == 0
    said = capsys.readouterr().out
    assert "a: 3 (at most 1.25 wanted) FAIL" in said
    assert "b: not measured (at most 1 wanted)" in said
