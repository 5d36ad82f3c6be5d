"""The README as the site's first page, and links to files of the repository that the site does not have, as names."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the README, with its links as they are from the folder of docs."""
    from mkdocs.structure.files import File

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=move_links(text)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    return name_outer_files(markdown, (ROOT / "docs" / page.file.src_uri).parent)


def move_links(text: str) -> str:
    """Links of a page beside the folder of docs, for a page inside it.

    >>> move_links("[a](docs/a.md) ![b](docs/b.png) [c](LICENSE) [d](https://d.org)")
    '[a](a.md) ![b](b.png) [c](../LICENSE) [d](https://d.org)'
    """

    def move(match: re.Match[str]) -> str:
        target = match[1]
        return f"]({target.removeprefix('docs/')})" if target.startswith("docs/") else f"](../{target})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", move, text)


def name_outer_files(text: str, folder: Path) -> str:
    """Replace a link out of the folder of docs by the path in the repository; one that does not exist is left, as dead.

    >>> name_outer_files("[the recipes](../recipes/lab), [method](method.md), [no](../no.md)", ROOT / "docs")
    'the recipes (`recipes/lab`), [method](method.md), [no](../no.md)'
    """

    def name(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = (folder / target).resolve()
        is_inner = path.is_relative_to(ROOT / "docs")
        if ":" in target or is_inner or not path.exists() or not path.is_relative_to(ROOT):
            return match[0]
        shown = f"`{path.relative_to(ROOT).as_posix()}`"
        return shown if words.strip("`") == path.relative_to(ROOT).as_posix() else f"{words} ({shown})"

    return _LINK.sub(name, text)
