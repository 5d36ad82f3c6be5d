"""Cost curves: the exponent is that of a power, sizes are what a pass reads, and the page shows what was kept."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgcd.bench.curves import CURVES, StepSize, count_layer_weights, count_tokens, describe_curve, fit_exponent
from sgcd.bench.sharing import build_group_of
from sgcd.bench.step_tables import curves_section
from sgcd.learn.scoring.forward import join_ids
from sgcd.learn.scoring.prefix_tree import build_prefix_tree

ROOT = Path(__file__).parents[2]
MACHINE = {"processor": "P", "cores": 2, "threads": 1, "cuda": None, "system": "S", "torch": "2"}
TAKEN = {"machine": MACHINE, "date": "2026-01-02", "rounds": 1}
sizes = st.lists(st.integers(1, 10**6), min_size=2, max_size=6, unique=True)


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        patch.syspath_prepend(str(ROOT / "bench/cost"))
        yield {name: import_module(name) for name in ("curves", "performance_table")}


@settings(deadline=None)
@given(sizes, st.floats(-2, 3), st.floats(1e-3, 1e3))
def test_the_exponent_of_a_power_is_found(xs: list[int], exponent: float, factor: float) -> None:
    costs = [factor * x**exponent for x in xs]
    assert fit_exponent(xs, costs) == pytest.approx(exponent, abs=1e-6)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40))
def test_tokens_are_counted_as_the_tree_has_them(siblings: int, prompt: int, response: int) -> None:
    size = StepSize(siblings=siblings, prompt=prompt, response=response)
    tree = build_prefix_tree([join_ids(one) for one in build_group_of(siblings, prompt, response)])
    # A few first tokens of responses may be equal by chance.
    assert count_tokens(size) - 2 * siblings <= tree.num_tokens <= count_tokens(size)


def test_weights_of_layers_are_those_of_the_model() -> None:
    from sgcd.bench.curves import build_model

    size = StepSize(vocabulary=300, hidden=128)
    layers = sum(each.numel() for each in build_model(size).model.layers.parameters())
    assert layers == pytest.approx(count_layer_weights(size), rel=0.1)


def test_curves_differ_in_one_size_alone() -> None:
    for curve in CURVES:
        xs = [curve.measure(size) for size in curve.sizes]
        assert xs == sorted(set(xs))
        assert all(size.prompt and size.response for size in curve.sizes)
    assert [curve.name for curve in CURVES] == [
        "response length", "siblings", "prompt share", "vocabulary", "model size"
    ]  # fmt: skip


def test_kept_curves_are_drawn_and_tabled(bench: Any) -> None:
    curve = CURVES[1]
    kept = describe_curve(curve, [1.0, 2.0, 4.0, 8.0], [1e6, 1e6, 2e6, 2e6])
    assert kept["time exponent"] == pytest.approx(1)
    assert 0 < kept["memory exponent"] < 1
    figure = bench["curves"].draw_curves([kept])
    texts = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert texts == ["exponent 1.00\nexpected 1", f"exponent {kept['memory exponent']:.2f}\nexpected 1"]
    [row] = [line for line in curves_section({"curves": [kept]}) if "siblings, siblings" in line]
    assert row == "| siblings, siblings | 2 | 16 | 1.00 | 1 | 0.40 | 1.00 to 8.00 | 1 to 2 |"
    assert np.isclose(kept["memory exponent"], 0.4, atol=0.005)


def test_the_page_has_a_step_and_sampling_where_they_were_kept(bench: Any) -> None:
    way = {"seconds": {"sampling": 1.0, "student": 2.0}, "bytes": 5e8}
    step = {**TAKEN, "note": "So.", "shared": way, "alone": {**way, "seconds": {"sampling": 1.0, "student": 4.0}}}
    arms = {"sampler": 30.0, "generate": 12.0, "continuous batching": 20.0}
    sampling = {**TAKEN, "cases": [{"case": "two", **arms, "ratio": 2.5}]}
    curves = {**TAKEN, "curves": [describe_curve(CURVES[1], [1, 2, 3, 4], [1, 2, 3, 4])]}
    scoring = {**TAKEN, "tokens": 9}
    told = bench["performance_table"].page(scoring, None, None, {"B9": step, "B10": sampling, "curves": curves})
    for line in (
        "| a whole step, CPU time | 0.6 | at most 0.5 | **miss** |",
        "| student | 2.00 | 4.00 |",
        "| sampler over generate: two | 2.5 | at least 1.2 | pass |",
        "| two | 30.0 | 12.0 | 20.0 |",
        "![cost curves](pictures/cost-curves.svg)",
    ):
        assert f"\n{line}\n" in told
    assert told.index("## B9") < told.index("## B10") < told.index("## Cost curves")
