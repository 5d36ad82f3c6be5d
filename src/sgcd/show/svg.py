"""Render a figure of matplotlib as an SVG for the page: no style, no script, and the colours of the page."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from re import fullmatch
from typing import Any
from xml.etree import ElementTree

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
