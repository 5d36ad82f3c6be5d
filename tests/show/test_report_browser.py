"""The page in a real browser: it opens without a complaint, asks for nothing, and shows what is asked of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import drawn_runs
from helpers.browser import Browser
from sgcd.records import Group, Task
from sgcd.show import report
from sgcd.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow
MODES = ("weight", "divergence", "advantage", "kind")
NOTHING = "rgba(0, 0, 0, 0)"
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">\u202e"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn run, one word of which is hostile."""
    words = [HOSTILE, *drawn_runs.WORDS[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "load_token_decoder", lambda *_: (lambda ids: [words[i - 10] for i in ids.tolist()], ""))  # pyright: ignore
        return report.write_report(drawn_runs.draw(tmp_path_factory.mktemp("shown") / "run").path)


@pytest.fixture
def shown(chromium: Browser, page: Path) -> Browser:
    chromium.open_at(page, 1400, 1000)
    return chromium


def place(shown: Browser, element: str) -> tuple[float, float]:
    """The middle of an element, or of its first line, once it is in sight."""
    x, y = shown.run(f"""(() => {{
        const it = document.querySelector({element!r});
        it.scrollIntoView({{block: "center", inline: "center", behavior: "instant"}});
        const box = it.getClientRects()[0];
        return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    return x, y


def colour(shown: Browser, element: str) -> str:
    return shown.run(f"getComputedStyle(document.querySelector({element!r})).backgroundColor")


def colours(shown: Browser) -> dict[str, str]:
    """Of the word that has all of them: a call with weight 2, far from the teacher, in a rollout that succeeded."""
    found: dict[str, str] = {}
    for mode in MODES:
        shown.click(*place(shown, f"label[for=by-{mode}]"))
        found[mode] = colour(shown, ".w9.p9.d8")
    return found


def card(shown: Browser) -> dict[str, str]:
    rows: Any = shown.run(
        "[...document.querySelectorAll('#numbers tr')].map(row => [...row.cells].map(c => c.textContent))"
    )
    return {} if shown.run("document.getElementById('numbers').hidden") else dict(rows)


def test_it_opens_without_a_complaint_and_asks_for_nothing(shown: Browser, page: Path) -> None:
    assert shown.run("document.querySelectorAll('.curves svg').length") == 3
    assert shown.run("document.querySelectorAll('.written span').length") == 2 * 3 * 5
    assert shown.complaints == []
    assert [url for url in shown.requests if not url.startswith("data:")] == [page.as_uri()]


def test_hostile_words_are_words(shown: Browser) -> None:
    assert shown.run("document.querySelector('.written span').textContent") == HOSTILE.replace("\u202e", "⟨U+202E⟩")
    assert shown.run("document.title") != "taken"
    assert shown.run("[document.scripts.length, document.images.length]") == [2, 0]


def test_what_the_page_does_not_know_is_blocked(shown: Browser) -> None:
    shown.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    shown.run("document.body.append(Object.assign(new Image(), {src: 'https://example.invalid/x.png'}))")
    shown.run("new Promise(requestAnimationFrame)")
    assert shown.run("document.title") != "1"
    assert "Content Security Policy" in "".join(shown.complaints)


def test_a_click_changes_what_colours_mean(shown: Browser) -> None:
    assert colour(shown, ".w9.p9.d8") != NOTHING, "by weight at first"
    found = colours(shown)
    assert len({*found.values(), NOTHING}) == 5
    shown.click(*place(shown, "label[for=by-weight]"))
    assert colour(shown, ".d5.m") != found["weight"]
    assert "color(srgb 0 0 0 / 0)" in colour(shown, ".d5.m") or colour(shown, ".d5.m").endswith("/ 0)")


def test_without_scripts_all_can_be_read_and_coloured(chromium: Browser, shown: Browser, page: Path) -> None:
    with_scripts = colours(shown)
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(page)
        assert colours(chromium) == with_scripts
        chromium.hover(*place(chromium, ".w9.p9.d8"))
        assert card(chromium) == {}
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)


def test_numbers_come_to_the_pointer(shown: Browser) -> None:
    shown.hover(*place(shown, ".w9.p9.d8"))
    assert card(shown) == {
        "token": "2, id 11",
        "kind": "call",
        "weight W": "2",
        "A × W": "1",
        "divergence, nats": "1",
        "teacher entropy, nats": "0",
        "log q − log p": "-1",
        "saliency": "1",
        "credit": "creditable",
    }
    shown.hover(*place(shown, ".m.p7"))
    assert card(shown)["credit"] == "masked literal"
    shown.hover(*place(shown, ".k3.p7"))
    assert card(shown)["divergence, nats"] == "not finite"
    shown.hover(3, 3)
    assert card(shown) == {}


def test_keys_lead_through_tokens_turns_and_siblings(shown: Browser) -> None:
    shown.run("document.querySelector('.siblings').focus()")
    seen: list[str] = []
    for key, shift in (("ArrowRight", False), ("ArrowRight", False), ("ArrowDown", False), ("ArrowLeft", False),
                       ("ArrowRight", True), ("ArrowUp", False)):  # fmt: skip
        shown.key(key, shift=shift)
        seen.append(card(shown)["token"] + " of " + shown.run("document.querySelector('.at').closest('td').dataset.of"))
    assert seen == [
        "1, id 10 of 1.0.0",
        "2, id 11 of 1.0.0",
        "5, id 14 of 1.0.0",
        "3, id 12 of 1.0.0",
        "1, id 10 of 1.0.1",
        "1, id 10 of 1.0.1",
    ]
    shown.key("Escape")
    assert card(shown) == {}
    for key, mode in (("d", "divergence"), ("a", "advantage"), ("k", "kind"), ("w", "weight")):
        shown.key(key, text=key)
        assert shown.run("document.querySelector('input:checked').id") == f"by-{mode}"


def test_dark_and_light_are_as_the_reader_has_it(shown: Browser, tmp_path: Path) -> None:
    grounds = set[str]()
    for scheme in ("light", "dark"):
        shown.look(1400, 1000, scheme)
        grounds.add(colour(shown, "body"))
        shown.picture(tmp_path / f"{scheme}.png")
        assert (tmp_path / f"{scheme}.png").stat().st_size > 10_000
    assert len(grounds) == 2


def test_the_page_is_no_wider_than_its_window(shown: Browser) -> None:
    for width in (1400, 800, 400):
        shown.look(width, 900)
        assert shown.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width


def test_eight_siblings_fit_a_laptop_and_a_phone_says_how_to_see_all(chromium: Browser, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", drawn_runs.RECIPE, {})
    ids = [np.roll(drawn_runs.IDS, sibling) for sibling in range(8)]  # equal siblings would be one column
    ids[6:] = [drawn_runs.IDS[::-1], np.full_like(drawn_runs.IDS, 10)]
    eight = tuple(drawn_runs.rollout(sibling, sibling < 3, response=ids[sibling]) for sibling in range(8))
    folder.write_rollouts(1, [Group(Task("t-1", "action", {}), eight)], [True])
    fits = "(() => {const it = document.querySelector('.siblings'); return it.scrollWidth <= it.clientWidth})()"
    hint = "getComputedStyle(document.querySelector('.sideways')).display"
    seen: list[tuple[bool, str]] = []
    for width in (1280, 390):
        chromium.look(width, 900)
        chromium.open(report.write_report(folder.path))
        seen.append((chromium.run(fits), chromium.run(hint)))
    assert seen == [(True, "none"), (False, "block")]


def test_turns_out_of_sight_cost_no_layout(chromium: Browser, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", drawn_runs.RECIPE, {})
    pages = [drawn_runs.rollout(0, True), drawn_runs.rollout(1, False)]
    folder.write_rollouts(1, [Group(Task(f"t-{n}", "action", {}), tuple(pages)) for n in range(3)], [True] * 3)
    chromium.look(1280, 400)
    chromium.open(report.write_report(folder.path))
    count = "[...document.querySelectorAll('details[open] .written')].filter(it => %s).length"
    in_sight = count % "it.firstElementChild.checkVisibility({contentVisibilityAuto: true})"
    assert chromium.run(count % "true") > chromium.run(in_sight) == 0
    chromium.run("document.querySelector('details[open] .written').scrollIntoView({behavior: 'instant'})")
    chromium.picture(tmp_path / "seen.png")  # the frame after the scroll
    assert chromium.run(in_sight) > 0


def test_tasks_are_filtered_by_step(shown: Browser) -> None:
    choose = (
        "(() => {const it = document.getElementById('of-step'); it.value = %r; it.dispatchEvent(new Event('input'))})()"
    )
    seen = "[...document.querySelectorAll('details.task')].filter(it => !it.hidden).map(it => it.id)"
    assert shown.run("[...document.getElementById('of-step').options].map(it => it.text)") == ["any step", "1", "2"]
    shown.run(choose % "2")
    assert shown.run(seen) == ["task-2-1"]
    assert shown.run("document.getElementById('found').textContent") == "1 of 2 tasks"
    shown.run(choose % "")
    assert shown.run(seen) == ["task-1-1", "task-2-1"]


def test_what_a_tool_returns_is_text_whatever_it_is(chromium: Browser, tmp_path: Path) -> None:
    """Markup, scripts, codes of a terminal, control characters, text from right to left, and a line of a megabyte."""
    bad = ("<script>document.title = 'taken'</script>", "\x1b[2J\x1b]8;;https://example.invalid\x07", "\x00\x08\u202e")
    messages = (
        {"role": "user", "content": "<img src=x onerror=\"document.title='taken'\">"},
        {"role": "assistant", "content": "so call b12"},
        {"role": "tool", "content": "done"},
        {"role": "assistant", "content": "yes"},
    )
    folder = RunFolder.create(tmp_path / "run", drawn_runs.RECIPE, {})
    played = tuple(drawn_runs.rollout(n, n == 0, "<b>t</b>", messages=messages) for n in range(2))
    folder.write_rollouts(1, [Group(Task("<b>t</b>", "action", {}), played)], [True])
    words = [*drawn_runs.WORDS[:3], "".join(bad) + "x" * 1_000_000, *drawn_runs.WORDS[4:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "load_token_decoder", lambda *_: (lambda ids: [words[i - 10] for i in ids.tolist()], ""))  # pyright: ignore
        page = report.write_report(folder.path)
    assert page.stat().st_size < 300_000
    chromium.complaints.clear()
    chromium.requests.clear()
    chromium.open(page)
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith("data:")] == [page.as_uri()]
    assert chromium.run("document.title") != "taken"
    seen = chromium.run("document.querySelector('.seen').textContent")
    assert seen.startswith(f"{bad[0]}⟨U+001B⟩[2J⟨U+001B⟩]8;;https://example.invalid⟨U+0007⟩⟨U+0000⟩⟨U+0008⟩⟨U+202E⟩")
    assert chromium.run("document.querySelector('summary b').textContent") == "<b>t</b>"
    assert chromium.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
