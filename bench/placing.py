"""Where a generated table stands in a page: between two markers, and nothing else of the page is touched."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def place_table(page: Path, table: str, begin: str, end: str) -> None:
    """Write the table into its page."""
    page.write_text(replace_generated(page.read_text(encoding="utf-8"), table, begin, end), encoding="utf-8")


def replace_generated(text: str, generated: str, begin: str, end: str, title: str = "") -> str:
    """The text with what stands between the markers replaced; without markers it goes to the end, under `title`."""
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {title}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{generated}\n\n{end}{rest.split(end)[1]}"


def measure_into_page(
    measure: Callable[[], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    *,
    results: Path,
    page: Path,
    markers: tuple[str, str],
) -> int:
    """Measure into the file of results, unless --page was typed, and write its table into its page."""
    if "--page" not in sys.argv:
        results.write_text(json.dumps(measure(), indent=1) + "\n")
    written = table(json.loads(results.read_text()))
    place_table(page, written, *markers)
    print(written)
    return 0
