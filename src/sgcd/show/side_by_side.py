"""Two runs on one page: their difference on held-out tasks, and the report of each, side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgcd.errors import FolderError
from sgcd.measure.compare import compare_evaluations, load_evaluation
from sgcd.measure.health import direction_of_change
from sgcd.show.escape_text import escape_text
from sgcd.show.report import find_report_path, render_page, render_template
from sgcd.show.tables import format_interval, format_number
from sgcd.storage.atomic import write_atomic
from sgcd.storage.run_folder import RunFolder


def write_pair(first: Path, second: Path, out: Path | None = None) -> Path:
    """Write the page of two runs and return its path; each run's own page is not touched."""
    folders = [RunFolder.open(path) for path in (first, second)]
    name = escape_text(second.resolve().name)
    page_path = find_report_path(folders[0], out or first / f"report-against-{name}.html")
    split = folders[0].read_recipe().get("evaluation", {}).get("split")
    compared, reason = compare_latest(first, second, split)
    page = render_template(
        "pair",
        names=[escape_text(str(path)) for path in (first, second)],
        pages=[render_page(folder) for folder in folders],
        headline=escape_text(describe_difference(compared) if compared else f"Not compared: {reason}"),
        rows=comparison_rows(compared) if compared else [],
        split=compared["split"] if compared else "",
    )
    write_atomic(page_path, page.encode())
    return page_path


def compare_latest(first: Path, second: Path, split: str | None) -> tuple[dict[str, Any] | None, str]:
    """The latest evaluations of both on a split, compared; or the reason why that is not possible."""
    try:
        return compare_evaluations([load_evaluation(first, split)], [load_evaluation(second, split)]), ""
    except FolderError as problem:
        return None, str(problem)


def describe_difference(compared: Mapping[str, Any]) -> str:
    """One sentence: both rates, their difference, and whether its interval leaves out zero."""
    mode = "sampled" if "sampled" in compared["modes"] else next(iter(compared["modes"]))
    total = compared["modes"][mode]["overall"]
    if total["a"] is None:
        return f"Nothing is known of success on held-out {compared['split']} tasks: every trial of a run broke."
    clearly = {"rose": "more", "fell": "less"}.get(direction_of_change(total) or "", "not clearly more or less")
    return (
        f"Success on held-out {compared['split']} tasks ({mode}) is {format_number(total['a'])} in the first run and "
        f"{format_number(total['b'])} in the second, {clearly}: {format_interval(total['difference'], '+')}."
    )


def comparison_rows(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for all tasks of a mode, and one for each category."""
    rows: list[dict[str, Any]] = []
    for mode, both in compared["modes"].items():
        parts = {"all": both["overall"], **both["categories"]}
        rows += [
            {
                "name": f"{mode}, all" if name == "all" else name,
                "is_whole": name == "all",
                "tasks": part["tasks"],
                "first": format_number(part["a"]),
                "second": format_number(part["b"]),
                "difference": format_interval(part["difference"], "+"),
                "p": "" if part["p"] is None else format_number(part["p"]),
            }
            for name, part in parts.items()
            if part["tasks"]
        ]
    return rows
