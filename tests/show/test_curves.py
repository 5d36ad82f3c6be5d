"""Pictures of a run: what is drawn, what is told in words, and that a strict page can hold them."""

from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from helpers import drawn_runs
from sgcd.show.plots.curves import build_curves
from sgcd.show.plots.drawing import trailing_mean
from sgcd.storage.metrics import StepMetrics


def metrics(steps: int = 3, **changes: Any) -> list[StepMetrics]:
    rows = ({**drawn_runs.ROW, "step": step, "loss": 0.1 * step, **changes} for step in range(1, steps + 1))
    return [StepMetrics.from_json(row) for row in rows]


EVALUATIONS = [drawn_runs.trial(step, task, "greedy", task < 3 + step) for step in (0, 2) for task in range(8)]


def test_what_changes_is_drawn_and_the_rest_is_told() -> None:
    drawn_, flat = build_curves(metrics(), EVALUATIONS, "dev")
    assert [curve.title for curve in drawn_] == ["Success", "Loss", "Time"]
    assert flat == ["training reward 0.5", "mixed groups 0.3333", "gradient 0.5", "clip share 0", "entropy 0.1"]
    assert drawn_[0].legend == (("greedy", "line-4"),)
    assert drawn_[-1].legend == (("sampling", "line-4"), ("training", "line-5"))


def test_the_credit_of_a_step_is_drawn() -> None:
    credit: list[dict[str, Any]] = [
        {
            "credited": step,
            "creditable": 10,
            "segments": 6,
            "scored": 3,
            "rollouts": 4,
            "weight": {"mean": 1 + step / 10, "histogram": None},
            "divergence": {"mean": 0.1, "p90": None, "p99": step},
            "where": {"call": {"credit": 0.5, "tokens": 0.1}, "answer": {"credit": 0.5 / step, "tokens": 0.9}},
        }
        for step in (1, 2, 3)
    ]
    credit[0] = {}  # a step without a mixed group
    rows = [StepMetrics.from_json({**row.to_json(), "credit": credit[row.step - 1]}) for row in metrics()]
    drawn_, flat = build_curves(rows, [], None)
    titles = ["Loss", "Credited tokens", "Mean weight", "Where credit falls", "Divergence", "Time"]
    assert [curve.title for curve in drawn_] == titles
    assert drawn_[1].picture.count("at step 2") == 1
    assert ".2 at step 2, 0.3 at step 3" in drawn_[1].picture
    assert drawn_[3].legend == (("call", "line-4"), ("answer", "line-5"))
    assert drawn_[4].legend == (("mean", "line-4"), ("p99", "line-5"))
    assert flat[-2:] == ["segments 2", "scored rollouts 0.75"]


def test_a_picture_has_no_style_no_script_and_the_colours_of_the_page() -> None:
    for curve in build_curves(metrics(), EVALUATIONS, "dev")[0]:
        root = ElementTree.fromstring(curve.picture)
        assert root.tag == "svg"
        assert root.get("aria-label", "").startswith(f"{curve.title}, ")
        for element in root.iter():
            assert element.tag in {"svg", "g", "path", "text", "use", "defs", "clipPath", "rect"}
            assert "style" not in element.attrib
            assert not any(name.startswith("on") for name in element.attrib)
            assert element.get("href", "#").startswith("#")
            for name in ("fill", "stroke"):
                assert element.get(name, "none") == "none" or element.get(name, "").startswith("var(--"), element.attrib


def test_the_same_numbers_are_the_same_picture_whatever_the_user_has_set() -> None:
    before = build_curves(metrics(), EVALUATIONS, "dev")
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "axes.facecolor": "red"}):  # pyright: ignore
        assert build_curves(metrics(), EVALUATIONS, "dev") == before
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_what_was_not_measured_is_left_out() -> None:
    assert build_curves([], [], None) == ([], [])
    rows = metrics(2, loss=None, success=None, reward=None, tasks=0, seconds={}, entropy=float("nan"))
    assert [curve.title for curve in build_curves(rows, [], "dev")[0]] == []


def test_rewards_that_are_not_success_are_drawn_beside_it() -> None:
    rows = [*metrics(1, reward=0.7), *metrics(2)[1:]]
    [curve] = [curve for curve in build_curves(rows, [], None)[0] if curve.title == "Training reward"]
    assert [name for name, _ in curve.legend] == ["reward", "success"]


def test_small_phases_are_told_as_one() -> None:
    spent = {**{name: 10.0 - place for place, name in enumerate("abcdefgh")}, "total": 60.0}
    [curve] = [curve for curve in build_curves(metrics(2, seconds=spent), [], None)[0] if curve.title == "Time"]
    assert [name for name, _ in curve.legend] == ["a", "b", "c", "d", "e", "the rest"]
    assert "a 17 %, b 15 %, c 13 %, d 12 %, e 10 %, the rest 33 %" in curve.picture


def test_the_trailing_mean() -> None:
    assert trailing_mean([1, 3, 5, 7, 9, 11]) == [1, 2, 3, 4, 5, pytest.approx(7)]
