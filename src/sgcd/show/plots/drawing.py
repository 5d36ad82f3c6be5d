"""Draws curves as SVG figures that a strict page may hold, and saves pictures as files."""

import io
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from re import fullmatch
from typing import Any
from xml.etree import ElementTree

from sgcd.show.tables import format_number

_SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
CSS_COLOURS = {
    "ink": "#010101",
    "faint": "#020202",
    "rule": "#030303",
    **{f"line-{number}": f"#0{number}0{number}0{number}" for number in range(4, 10)},
}
"""Placeholder colours for matplotlib; the page replaces each by its CSS variable of that name, light or dark."""
_CSS_VARIABLES = {stand_in: f"var(--{name})" for name, stand_in in CSS_COLOURS.items()}


@contextmanager
def default_style() -> Generator[None]:
    """Draw with matplotlib's defaults, whatever settings the user has."""
    matplotlib: Any = import_module("matplotlib")  # its types are unknown in part
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "sgcd", "svg.fonttype": "none", "text.parse_math": False})
        yield


_SAVE_AS: Mapping[str, Mapping[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "png": {"dpi": 150, "metadata": {"Software": None}},
}
"""Without date and version, so that the same numbers give the same bytes."""


def save_pictures(pictures: Mapping[str, Any]) -> dict[str, bytes]:
    """Each figure as SVG and PNG by the name of its file; None is no figure."""
    files: dict[str, bytes] = {}
    for name, figure in pictures.items():
        for form, settings in _SAVE_AS.items() if figure else ():
            out = io.BytesIO()
            figure.savefig(out, format=form, facecolor="white", **settings)
            files[f"{name}.{form}"] = out.getvalue()
    return files


def strip_panel(panel: Any) -> None:
    """Take away what is not data."""
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25, linewidth=0.6)


def render_svg(figure: Any, label: str) -> str:
    """The same figure gives the same text: no date, no version, and ids derived from the content."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _clean_svg(ElementTree.fromstring(out.getvalue()), label)


def _clean_svg(root: ElementTree.Element, label: str) -> str:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG_NAMESPACE}style", f"{_SVG_NAMESPACE}metadata") or "}" not in child.tag:
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG_NAMESPACE)
        element.text, element.tail = (element.text or "").strip() or None, None
        if element.tag == "g":
            element.attrib.pop("id", None)  # every figure has an axes_1
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
        for name, value in _declarations(element.attrib.pop("style", "")):
            element.set(name, value)
        for name, value in element.attrib.items():
            element.set(name, _CSS_VARIABLES.get(value, value))
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def _declarations(style: str) -> list[tuple[str, str]]:
    """Turn a style's declarations into attributes, because the page forbids inline style."""
    attributes: list[tuple[str, str]] = []
    for declaration in filter(None, map(str.strip, style.split(";"))):
        name, value = (part.strip() for part in declaration.split(":", 1))
        if name == "font":
            size = fullmatch(r"(?:\w+ )*?([\d.]+)px .*", value)
            attributes.append(("font-size", size[1] if size else "10"))
        else:
            attributes.append((name, value))
    return attributes


CurvePoints = list[tuple[int, float]]
RateEstimate = Mapping[str, Any]
_FIGURE_INCHES = (3.9, 1.9)
"""The page scales the picture."""
TRAILING_STEPS = 5
"""Steps in a trailing mean."""
_FAINT, _RULE = CSS_COLOURS["faint"], CSS_COLOURS["rule"]
_COLOUR_NAMES = {colour: name for name, colour in CSS_COLOURS.items()}
LINE_COLOURS = [colour for name, colour in CSS_COLOURS.items() if name.startswith("line-")]


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture with its title, a note, and a legend of (name, CSS colour)."""

    title: str
    note: str
    picture: str
    legend: tuple[tuple[str, str], ...] = ()


def plot_lines(
    title: str, note: str, lines: Mapping[str, CurvePoints], *, unit_range: bool = False, with_mean: bool = False
) -> Curve:
    """Draw a line for each name.

    `unit_range`: the axis runs from zero to one, if all values do. `with_mean`: values are faint below a trailing mean.
    """
    fits_unit_range = all(0 <= value <= 1 for line in lines.values() for _, value in line)
    figure, axes = _new_axes(unit_range and fits_unit_range)
    descriptions: list[str] = []
    legend: list[tuple[str, str]] = []
    for (name, line), colour in zip(lines.items(), LINE_COLOURS, strict=False):
        steps, values = [step for step, _ in line], [value for _, value in line]
        marker = "o" if len(steps) <= 16 else None
        style = {"alpha": 0.45, "linewidth": 1} if with_mean else {"linewidth": 1.7}
        axes.plot(steps, values, color=colour, marker=marker, markersize=3, **style)
        if with_mean:
            axes.plot(steps, trailing_mean(values), color=colour, linewidth=2)
        if len(lines) > 1:
            legend.append((name, colour))
        descriptions.append(f"{name} {values[0]:.3g} at step {steps[0]}, {values[-1]:.3g} at step {steps[-1]}".strip())
    return _finish_curve(
        figure, axes, title=title, note=note, description="; ".join(descriptions), coloured_names=legend
    )


def plot_intervals(title: str, note: str, rates: Mapping[str, Sequence[tuple[int, RateEstimate]]]) -> Curve:
    """Draw rates with their intervals, a line for each name."""
    figure, axes = _new_axes(unit_range=True)
    descriptions: list[str] = []
    legend: list[tuple[str, str]] = []
    for (name, series), colour in zip(rates.items(), LINE_COLOURS, strict=False):
        bounded = [(step, rate["low"], rate["high"]) for step, rate in series if rate["low"] is not None]
        if bounded:
            axes.fill_between(*zip(*bounded, strict=True), color=colour, alpha=0.13, linewidth=0)
            axes.vlines(*zip(*bounded, strict=True), color=colour, alpha=0.5, linewidth=1)
        values = [(step, rate["value"]) for step, rate in series]
        axes.plot(*zip(*values, strict=True), color=colour, marker="o", markersize=3.5, linewidth=1.6)
        legend.append((name, colour))
        (first, start), (last, end) = values[0], values[-1]
        descriptions.append(f"{name} {format_number(start)} at step {first}, {format_number(end)} at step {last}")
    return _finish_curve(
        figure, axes, title=title, note=note, description="; ".join(descriptions), coloured_names=legend
    )


def plot_stack(
    title: str, note: str, steps: Sequence[int], *, parts: Mapping[str, Sequence[float]], description: str
) -> Curve:
    """Draw the parts of each step as bars on top of each other."""
    figure, axes = _new_axes()
    bottoms = [0.0] * len(steps)
    legend: list[tuple[str, str]] = []
    for (name, values), colour in zip(parts.items(), LINE_COLOURS, strict=False):
        axes.bar(steps, values, bottom=bottoms, width=0.82, color=colour, alpha=0.85, linewidth=0)
        legend.append((name, colour))
        bottoms = [low + height for low, height in zip(bottoms, values, strict=True)]
    return _finish_curve(figure, axes, title=title, note=note, description=description, coloured_names=legend)


def trailing_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and the values just before it."""
    parts = [values[max(0, end - TRAILING_STEPS) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


def _new_axes(unit_range: bool = False) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure: Any = Figure(figsize=_FIGURE_INCHES)
    axes = figure.add_axes((0.12, 0.13, 0.86, 0.83))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.tick_params(colors=_FAINT, labelsize=9, length=0, pad=4)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    if unit_range:
        axes.set_ylim(0, 1.02)
        axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure, axes


def _finish_curve(
    figure: Any, axes: Any, *, title: str, note: str, description: str, coloured_names: Sequence[tuple[str, str]]
) -> Curve:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.margins(x=0.03)
    legend = tuple((name, _COLOUR_NAMES[colour]) for name, colour in coloured_names)
    return Curve(title, note, render_svg(figure, f"{title}, {note}: {description}"), legend)
