"""Writes the list of modules in docs/architecture.md from the first line of each module's docstring."""

import ast
import re
from pathlib import Path

PAGE = Path(__file__).with_name("architecture.md")
HOUSE = Path(__file__).resolve().parents[1] / "src" / "sgcd"
BLOCK = re.compile(r"```house\n.*?```", re.DOTALL)


def list_modules() -> str:
    """One line a module that holds anything; `settings.py` of a folder goes without saying."""
    lines: list[str] = []
    paths = sorted(HOUSE.rglob("*.py"), key=lambda path: path.relative_to(HOUSE).as_posix())
    for path in sorted(paths, key=lambda path: path.parent.relative_to(HOUSE).as_posix()):
        name = path.relative_to(HOUSE).as_posix()
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if docstring is None or (path.name == "settings.py" and path.parent != HOUSE):
            continue
        first = " ".join(docstring.split("\n\n")[0].split())
        lines.append(f"{name:44} {first}")
    return "\n".join(lines)


def render(page: str) -> str:
    return BLOCK.sub(lambda _: f"```house\n{list_modules()}\n```", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
