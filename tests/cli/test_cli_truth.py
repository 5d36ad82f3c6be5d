"""sgcd lab truth, small: everything that it finds out is there, as JSON and as tables, and the same every time."""

import io
import json
import sys
from typing import Any

import pytest
from rich.console import Console

from sgcd.cli import main
from sgcd.show.study_tables import truth_tables
from sgcd.study import decision_values as truth

SMALL = ["lab", "truth", "plain", "method.segments.saturation=5", "--tasks", "6", "--rollouts", "40", "--json"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def told() -> str:
    """What the verb prints, with eight plays on each side instead of 64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "NUM_CONTINUATIONS", 8)
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        assert main(SMALL) == 0
        assert "plain: 6 of 6 mixed tasks" in err.getvalue()
        return out.getvalue()


@pytest.fixture(scope="module")
def found(told: str) -> dict[str, Any]:
    answer = json.loads(told)
    assert (answer["schema"], answer["method"], [*answer["starts"]]) == (1, "sgcd", ["plain"])
    return answer["starts"]["plain"]


@pytest.mark.slow
def test_the_counts_are_those_that_were_asked_for(found: dict[str, Any]):
    assert found["reference"]["tasks"] == found["sizes"]["mixed"] == 6
    assert (found["truth"]["rollouts"], found["truth"]["groups"]) == (40, 5)
    assert found["definition"] == {"top below": 0.98, "continuations": 8, "errors": 3.0}
    assert (found["method"]["k"], found["method"]["segments"]["saturation"]) == (20, 5)
    assert (found["gradients"]["groups"], found["gradients"]["batch"]) == (5, 2)
    kinds = found["truth"]["measured"]
    assert 0 < kinds["all"] == kinds["thinking"] + kinds["call"] + kinds["answer"] < found["truth"]["tokens"]


@pytest.mark.slow
def test_every_figure_lies_where_it_can(found: dict[str, Any]):
    for arm in ("without", "own", "shuffled"):
        assert 0 < found["reference"][arm]["value"] < 1
    shares = found["credit"]["shares"]
    assert shares["literals"]["credit"] == 0 < shares["literals"]["tokens"]
    assert sum(shares[kind]["tokens"] for kind in ("thinking", "call", "answer")) == pytest.approx(1)
    assert sum(shares[kind]["credit"] for kind in ("thinking", "call", "answer")) == pytest.approx(1)
    assert 1 < found["credit"]["mean weight"] < 2
    for kind in ("raw", "scaled"):
        assert set(found["gradients"][kind]) == {
            "grpo", "sgcd", "sgcd published", "sgcd absolute", "sgcd floor", "shuffled", "shuffled published",
            "shuffled absolute", "shuffled floor", "oracle", "oracle floor", "decisive",
        }  # fmt: skip
        for arm in found["gradients"][kind].values():
            assert -1 <= arm["agreement"]["value"] <= 1
        assert found["gradients"][kind]["grpo"]["less grpo"]["value"] == 0


@pytest.mark.slow
def test_divergence_lies_at_the_policys_choices(found: dict[str, Any]):
    assert found["truth"]["decisive"]["all"] > 5
    assert found["location"]["all"]["divergence"]["auroc"]["own"]["value"] > 0.8
    assert found["direction"]["gap"]["value"] > 0.6
    assert found["credit"]["shares"]["decisive"]["tokens"] < 0.2


@pytest.mark.slow
def test_tables_show_it_within_eighty_columns(found: dict[str, Any]):
    console = Console(width=80, record=True, file=io.StringIO())
    for one in truth_tables(found):
        console.print(one)
    said = console.export_text()
    for words in (
        "Success where siblings mix",
        "divergence, AUROC",
        "sgcd floor",
        "boilerplate",
        "rollout's advantage",
    ):
        assert words in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["moon"], "moon is not a folder here"),
        (["plain", "seed=1"], "seed=1: only keys of the method can be set"),
        (["plain", "method.gama=1"], "method.gamma"),
        (["plain", "--method", "grpo"], "'grpo' is no method that locates credit"),
        (["plain", "--method", "moon"], "'moon' is no method that locates credit"),
    ],
)
def test_what_cannot_be_measured_is_refused(typed: list[str], said: str, capsys: Capture):
    assert main(["lab", "truth", *typed]) == 2
    assert said in capsys.readouterr().err
