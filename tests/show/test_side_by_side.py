"""Two runs on one page: what differs, each run's own page, and tasks that open on both sides."""

from collections.abc import Generator
from pathlib import Path

import pytest

from helpers import drawn_runs
from helpers.browser import PROGRAM, Browser, browser
from sgcd.cli import main
from sgcd.show.side_by_side import write_pair


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    for name in ("a", "b"):
        drawn_runs.draw(home / name)
    return write_pair(home / "a", home / "b")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    if not PROGRAM:
        pytest.skip("no Chromium")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_the_command_writes_the_page_and_says_where(page: Path, capsys: pytest.CaptureFixture[str]):
    home = page.parents[1]
    assert main(["report", str(home / "a"), "--against", str(home / "b")]) == 0
    assert capsys.readouterr().out == f"report: {home / 'a/report-against-b.html'}\n"
    text = page.read_text(encoding="utf-8")
    assert text.count("<iframe") == 2
    assert "not clearly more or less" in text
    assert main(["report", str(home / "a"), "--against", str(home / "b"), "--step", "1"]) == 2


def test_a_run_without_an_evaluation_is_shown_and_not_compared(tmp_path: Path):
    for name in ("a", "b"):
        drawn_runs.draw(tmp_path / name)
    (tmp_path / "b/evaluation.jsonl").write_text("")
    assert "Not compared: " in write_pair(tmp_path / "a", tmp_path / "b").read_text(encoding="utf-8")


def test_a_task_opens_on_both_sides_and_nothing_is_asked_of_the_network(page: Path, chromium: Browser):
    chromium.look(1280, 900)
    chromium.complaints.clear()
    chromium.requests.clear()
    chromium.open(page)
    tasks = "[...document.querySelectorAll('iframe')].map(it => it.contentDocument.querySelector('details.task'))"
    is_open = f"{tasks}.map(it => it.open)"
    before = chromium.run(is_open)
    chromium.run(f"{tasks}[0].open = {'false' if before[0] else 'true'}")
    chromium.picture(page.with_name("seen.png"))  # the frame in which the event comes
    assert chromium.run(is_open) == [not before[0]] * 2
    assert chromium.complaints == []
    assert {url for url in chromium.requests if not url.startswith(("about:", "data:"))} == {page.resolve().as_uri()}
    chromium.look(390, 900)
    assert chromium.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
