"""The site of `make docs`: every page has a place in it, no link is dead, and its pages load nothing from elsewhere."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from helpers.browser import Browser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def site_config() -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def list_pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in list_pages(part)]


def test_every_page_has_one_place_in_the_site(site_config: dict[str, Any]):
    placed = list_pages(site_config["nav"])
    assert sorted(placed) == sorted({"index.md", "log/README.md", *(path.name for path in DOCS.glob("*.md"))})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text)
    assert [link for link in links if not find_target(page, link)] == []


def find_target(page: Path, link: str) -> bool:
    """Whether the file is there, and the heading in it."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    if not target.exists() or not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_that_leave_the_site_become_names():
    names = runpy.run_path(str(DOCS / "site_pages.py"))
    outer = names["name_outer_files"]("[the recipes](../recipes/lab), [no](../no.md)", DOCS)
    assert outer == "the recipes (`recipes/lab`), [no](../no.md)"
    assert names["move_links"]("[a](docs/a.md#b) [c](LICENSE)") == "[a](a.md#b) [c](../LICENSE)"


@pytest.fixture(scope="module")
def site() -> Path:
    made = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    if made.returncode and not (ROOT / ".venv-docs/.installed").is_file():
        pytest.skip(".venv-docs, the environment with mkdocs, could not be made (make docs)")
    assert made.returncode == 0, made.stdout + made.stderr
    return ROOT / "build/site"


@pytest.mark.slow
def test_the_site_is_built_and_names_its_pages(site: Path):
    home = (site / "index.html").read_text(encoding="utf-8")
    assert '<a href="credit.html"' in home
    assert (site / "log/index.html").is_file()
    assert not [*site.rglob("*.py")]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", ["index.html", "recipe.html", "case-airline.html", "log/index.html"])
def test_a_page_of_the_site_loads_nothing_from_elsewhere(page: str, width: int, site: Path, chromium: Browser):
    chromium.open_at(site / page, width, 900)
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert chromium.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
