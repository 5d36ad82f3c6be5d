"""Measures the cost curves of a step, keeps the figures, and draws them; the table is on docs/performance.md.

    python bench/cost/curves.py [--rounds 2] [--curve NAME ...] [--draw]

Random Qwen3 models of two layers, one group a step, float32: sizes that two cores can do. The figures go into
docs/curves.json, the picture to docs/pictures/cost-curves.svg. --curve measures some of
them and keeps the others; --draw measures nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sgcd.bench.curves import CURVES as COST_CURVES
from sgcd.bench.curves import measure_curve
from sgcd.cli.commands.bench import describe_machine
from sgcd.show.plots.drawing import default_style, save_pictures, strip_panel

sys.path.append(str(Path(__file__).resolve().parents[1]))
from performance import CURVES, DOCS, read_json, write_json, write_page

Json = dict[str, Any]
_TIME, _MEMORY, _EXPECTED = "#1f5fa8", "#b5541c", "#8a8a8a"
_MEGABYTE = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    names = [curve.name for curve in COST_CURVES]
    parser.add_argument("--curve", nargs="*", choices=names, default=names, help="which; all without it")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if not args.draw:
        torch.set_num_threads(1)
        keep_curves(args.curve, args.rounds)
    with default_style():
        figure = draw_curves(read_json(CURVES)["curves"])
        files = save_pictures({"cost-curves": figure})
    (DOCS / "pictures/cost-curves.svg").write_bytes(files["cost-curves.svg"])
    write_page()
    return 0


def keep_curves(names: Sequence[str], rounds: int) -> None:
    """Measure these curves; the others stay as they were kept."""
    kept = {curve["name"]: curve for curve in (read_json(CURVES) or {"curves": []})["curves"]}
    for curve in COST_CURVES:
        if curve.name in names:
            kept[curve.name] = measure_curve(curve, rounds)
            curves = [kept[each.name] for each in COST_CURVES if each.name in kept]
            measured = {"machine": describe_machine(), "date": date.today().isoformat(), "rounds": rounds}
            write_json(CURVES, {"schema": 1, **measured, "curves": curves})
            print(json.dumps(kept[curve.name]), file=sys.stderr, flush=True)


def draw_curves(curves: Sequence[Json]) -> Any:
    """Time above, memory below, a column for each curve; grey is the expected slope through the largest size."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(2.7 * len(curves), 5.2))
    panels = figure.subplots(2, len(curves), squeeze=False, gridspec_kw={"wspace": 0.35, "hspace": 0.25})
    for column, curve in enumerate(curves):
        _draw_cost(panels[0][column], curve, curve["seconds"], curve["time exponent"], _TIME)
        megabytes = [size / _MEGABYTE for size in curve["bytes"]]
        _draw_cost(panels[1][column], curve, megabytes, curve["memory exponent"], _MEMORY)
        panels[0][column].set_title(curve["name"], loc="left", fontsize=10)
        panels[1][column].set_xlabel(curve["unit"], fontsize=8.5)
    panels[0][0].set_ylabel("CPU seconds of a step", fontsize=8.5)
    panels[1][0].set_ylabel("MB beyond model and moments", fontsize=8.5)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.93, bottom=0.12)
    return figure


def _draw_cost(panel: Any, curve: Json, costs: Sequence[float], exponent: float, colour: str) -> None:
    from matplotlib.ticker import EngFormatter

    xs = curve["x"]
    line = [costs[-1] * (x / xs[-1]) ** curve["expected"] for x in xs]
    panel.plot(xs, line, color=_EXPECTED, linewidth=1, linestyle="--")
    panel.plot(xs, costs, color=colour, linewidth=1.5, marker="o", markersize=3)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.xaxis.set_major_formatter(EngFormatter(places=0, sep=""))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.tick_params(axis="x", rotation=30)
    text = f"exponent {exponent:.2f}\nexpected {curve['expected']:g}"
    panel.text(0.04, 0.96, text, transform=panel.transAxes, va="top", fontsize=8)
    strip_panel(panel)


if __name__ == "__main__":
    sys.exit(main())
