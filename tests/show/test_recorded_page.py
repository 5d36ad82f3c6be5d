"""The page of recorded rollouts in a real browser: long rollouts, search, links, and texts that would like to run."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.browser import Browser
from helpers.recorded import BOOK, MIXED, answered, asks, call, says, write_lines
from sgcd.cli import main
from sgcd.credit_records import Credit, CreditRecord
from sgcd.records import Call, Rollout, Turn, Verdict
from sgcd.show.turn_strip import build_strip

HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    "<svg onload=alert(1)> \u202e\u0000\u001b[31mred\u001b[0m\u2028 javascript:alert(1) {{7*7}} <!-- -->"
)
NUM_TURNS = 16


def test_a_mark_is_as_strong_as_the_turns_part_of_the_weight() -> None:
    turns = (Turn(0, 2, (Call("look", {}),)), Turn(3, 4, (Call("book", {}, is_error=True),)), Turn(4, 6))
    mask = np.array([1, 1, 0, 1, 1, 1], bool)
    rollout = Rollout(
        task="t", category="action", sibling=0, seed=0, prompt=np.zeros(0, np.int32), reference_position=0,
        response=np.arange(6, dtype=np.int32), response_mask=mask, token_kinds=mask.astype(np.uint8),
        sampling_logprobs=np.zeros(6, np.float32), turns=turns, messages=(), tools=(), end_reason="answered",
        verdict=Verdict(1.0, True),
    )  # fmt: skip
    weight = np.array([1, 1.5, 2, 2, 1, 1], np.float32)  # the third is no token of the policy
    marks = build_strip(rollout, CreditRecord(Credit(1.0, weight, cap=2.0)))
    assert [(mark.turn, mark.level, mark.has_calls, mark.has_problem) for mark in marks] == [
        (1, 3, True, False),
        (2, 6, True, True),
        (3, 0, False, False),
    ]
    assert marks[0].title == "turn 1, calls look, 33 % of the weight above one"
    assert {mark.level for mark in build_strip(rollout, None)} == {0}


def long_rollout(reward: float, *, looks: bool) -> dict[str, Any]:
    """Sixteen turns or so; the tool answers with what would like to be run, and once with a megabyte on one line."""
    messages: list[dict[str, Any]] = [asks(f"Two seats please. {HOSTILE}")]
    for number in range(NUM_TURNS - 2):
        answer = "x" * 1_000_000 if number == 3 else HOSTILE
        messages += [call("look" if looks else "wait", note=HOSTILE), answered(answer)]
    messages += [call("book", seats=3 if looks else 2), answered("Error: <b>full</b>"), says(f"Done. {HOSTILE}")]
    return {"task_id": f"long {HOSTILE}", "reward": reward, "messages": messages, "tools": [BOOK], "category": "long"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    rows = [*MIXED, long_rollout(1.0, looks=True), long_rollout(0.0, looks=False)]
    file = write_lines(folder / "rows.jsonl", rows)
    assert main(["credit", str(file), "--no-score", "--out", str(folder / "A")]) == 0
    return folder / "A" / "report.html"


@pytest.fixture
def shown(chromium: Browser, page: Path) -> Browser:
    chromium.open_at(page, 1280, 900)
    return chromium


def search(shown: Browser, words: str) -> str:
    return shown.run(f"""(() => {{
        const sought = document.getElementById("sought");
        sought.value = {words!r};
        sought.dispatchEvent(new Event("input", {{bubbles: true}}));
        return document.getElementById("found").textContent;
    }})()""")


@pytest.mark.slow
def test_hostile_rollouts_are_text_and_ask_for_nothing(shown: Browser, page: Path) -> None:
    assert shown.complaints == []
    assert [url for url in shown.requests if not url.startswith("data:")] == [page.as_uri()]
    assert shown.run("document.title") != "taken"
    assert shown.run("[document.scripts.length, document.images.length]") == [2, 0]
    text = shown.run("document.body.textContent")
    assert "⟨U+202E⟩⟨U+0000⟩⟨U+001B⟩[31mred" in text
    assert not {"\u202e", "\x1b"} & {*text}
    assert page.stat().st_size < 1_000_000


@pytest.mark.slow
def test_search_and_filters_find_tasks(shown: Browser) -> None:
    assert search(shown, "economy") == "1 of 2 tasks"
    assert search(shown, "SEATS please") == "2 tasks"
    assert search(shown, "no such words") == "0 of 2 tasks"
    assert shown.run("[...document.querySelectorAll('details.task')].every(task => task.hidden)")
    search(shown, "")
    choose = "const of = document.getElementById('of-category'); of.value = 'long';"
    shown.run(choose + "of.dispatchEvent(new Event('input', {bubbles: true}))")
    assert shown.run("document.getElementById('found').textContent") == "1 of 2 tasks"
    assert shown.run("document.getElementById('of-outcome')") is None  # all are mixed
    box = "document.getElementById('sought').getBoundingClientRect()"
    assert shown.run(f"{box}.width > 60 && getComputedStyle(document.getElementById('sought')).opacity === '1'")


@pytest.mark.slow
def test_a_slash_leads_to_the_search_and_words_there_change_no_colour(shown: Browser) -> None:
    shown.key("/", text="/")
    assert shown.run("document.activeElement.id") == "sought"
    before = shown.run("document.querySelector('fieldset input:checked').id")
    shown.key("k", text="k")
    assert shown.run("document.getElementById('sought').value") == "k"
    assert shown.run("document.querySelector('fieldset input:checked').id") == before


@pytest.mark.slow
def test_a_link_opens_its_task(chromium: Browser, shown: Browser, page: Path) -> None:
    shown.run("document.querySelectorAll('details.task').forEach(task => { task.open = false })")
    shown.run("location.hash = 'task-1-2'")
    shown.run("new Promise(done => setTimeout(done, 50))")
    opened = "[...document.querySelectorAll('details.task')].map(task => task.open)"
    assert shown.run(opened) == [False, True]
    shown.run("document.querySelector('#task-1-1 summary').click()")
    assert shown.run("location.hash") == "#task-1-1"


@pytest.mark.slow
def test_a_long_rollout_is_folded_and_its_marks_open_turns(shown: Browser) -> None:
    shown.run("document.getElementById('task-1-2').open = true")
    table = "document.querySelector('#task-1-2 table')"
    assert shown.run(f"{table}.tBodies[0].rows.length") == NUM_TURNS
    assert shown.run(f"{table}.querySelectorAll('.strip button').length") == 2 * NUM_TURNS
    raised = shown.run(f"[...{table}.tBodies[0].rows].map(row => !row.classList.contains('folded'))")
    assert any(raised)
    assert not all(raised)
    folded = raised.index(False)
    height = f"{table}.tBodies[0].rows[{folded}].getBoundingClientRect().height"
    assert shown.run(height) < 60
    started = time.perf_counter()
    shown.run(f"{table}.querySelector('.strip [data-turn=\"{folded + 1}\"]').click()")
    assert shown.run(height) > 60
    assert time.perf_counter() - started < 5  # 100 ms where nothing else runs
    shown.run(f"{table}.tBodies[0].rows[{folded}].querySelector('.fold').click()")
    assert shown.run(height) < 60
    assert shown.run(f"{table}.querySelectorAll('.strip .bad').length") == 2


@pytest.mark.slow
def test_the_page_is_no_wider_than_its_window(shown: Browser) -> None:
    shown.run("document.querySelectorAll('details.task').forEach(task => { task.open = true })")
    for width in (1280, 390):
        shown.look(width, 900)
        assert shown.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
