"""Where a generated table stands in a page: between two markers, and nothing else of the page is touched."""

from pathlib import Path


def place_table(page: Path, table: str, begin: str, end: str) -> None:
    """Write the table into its page."""
    page.write_text(replace_generated(page.read_text(encoding="utf-8"), table, begin, end), encoding="utf-8")


def replace_generated(text: str, generated: str, begin: str, end: str, title: str = "") -> str:
    """The text with what stands between the markers replaced; without markers it goes to the end, under `title`."""
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {title}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{generated}\n\n{end}{rest.split(end)[1]}"
