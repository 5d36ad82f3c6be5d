"""Pictures of a study's result, as SVG and PNG: curves with bands, and differences with their intervals."""

from collections.abc import Sequence
from typing import Any

from sgcd.show.plots.drawing import default_style, save_pictures, strip_panel
from sgcd.show.tables import JsonMapping

_ARM, _CONTROL, _PERMUTED = "#1f5fa8", "#8a8a8a", "#b5541c"
_PANELS_PER_ROW = 3


def draw_study(result: JsonMapping) -> dict[str, bytes]:
    """Each picture by the name of its file."""
    with default_style():
        drawings = {"curves": draw_curves(result), "differences": draw_differences(result)}
        return save_pictures(drawings)


def draw_curves(result: JsonMapping) -> Any:
    """A panel for each arm: its mean over seeds with the t interval as band, its permuted twin, and the control."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    study, arms = result["study"], result["arms"]
    names = [name for name in study["arms"] if arms[name]["curve"]]
    if not names:
        return None
    num_rows = -(-len(names) // _PANELS_PER_ROW)
    figure: Any = Figure(figsize=(9.6, 2.6 * num_rows + 0.3), layout="constrained")
    panels = figure.subplots(num_rows, min(len(names), _PANELS_PER_ROW), sharex=True, sharey=True, squeeze=False)
    control = study["compare_with"][0]
    for panel, name in zip(panels.flat, names, strict=False):
        if name != control:
            _draw_curve(panel, arms[control]["curve"], _CONTROL, control)
        if name in study["permuted"]:
            _draw_curve(panel, arms[f"{name}-permuted"]["curve"], _PERMUTED, "permuted verdicts", "--")
        _draw_curve(panel, arms[name]["curve"], _ARM, name)
        panel.set_title(name, loc="left", fontsize=10)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.legend(frameon=False, fontsize=7.5, loc="upper left")
        strip_panel(panel)
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.supylabel(f"success on {result['split']} tasks", fontsize=9)
    return figure


def _draw_curve(panel: Any, curve: Sequence[Any], colour: str, label: str, line_style: str = "-") -> None:
    steps = [step for step, _ in curve]
    bounded = [(step, estimate["low"], estimate["high"]) for step, estimate in curve if estimate["low"] is not None]
    if bounded:
        panel.fill_between(*zip(*bounded, strict=True), color=colour, alpha=0.15, linewidth=0)
    values = [estimate["value"] for _, estimate in curve]
    panel.plot(
        steps, values, color=colour, linestyle=line_style, linewidth=1.5, marker="o", markersize=2.5, label=label
    )


def draw_differences(result: JsonMapping) -> Any:
    """A forest plot: every difference of the tables with its interval, and its corrected p."""
    from matplotlib.figure import Figure

    groups = [(f"less {part['less']}", part["rows"]) for part in result["differences"]]
    permuted = result["permuted"]
    groups.append(("less its own permuted run", permuted["beyond"]))
    groups.append((f"less its own permuted run, less {permuted['less']}'s", permuted["against"]))
    groups = [(title, [row for row in rows if row["value"] is not None]) for title, rows in groups]
    groups = [(title, rows) for title, rows in groups if rows]
    if not groups:
        return None
    heights = [len(rows) for _, rows in groups]
    size = (7.6, 0.32 * sum(heights) + 0.75 * len(groups) + 0.4)
    figure: Any = Figure(figsize=size, layout="constrained")
    ratios = [height + 1.2 for height in heights]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})
    for panel, (title, rows) in zip(panels.flat, groups, strict=True):
        for place, row in enumerate(rows):
            if row["low"] is not None:
                panel.hlines(place, row["low"], row["high"], color=_ARM, linewidth=1.6)
            panel.plot([row["value"]], [place], marker="s", markersize=5, color=_ARM)
            p = row["p_corrected"]
            text = "no p" if p is None else f"p {p:.3f}" if p >= 0.001 else "p < .001"
            panel.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        panel.axvline(0, color=_CONTROL, linewidth=0.9)
        panel.set_yticks(range(len(rows)), [row["arm"] for row in rows], fontsize=8.5)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_title(title, loc="left", fontsize=9.5)
        strip_panel(panel)
    figure.supxlabel("difference in success, with 95 % interval; p corrected by Holm", fontsize=8.5)
    return figure
