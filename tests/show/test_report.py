"""The page of a run: one file, strict, the same bytes each time, and no text in it can do anything."""

import json
import re
import sys
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import drawn_runs
from helpers.old_runs import drop_checksums
from sgcd.cli import main
from sgcd.cli.commands.train import summarise_run
from sgcd.credit_records import CreditRecord, Features
from sgcd.measure import health
from sgcd.records import Group, Task, Verdict
from sgcd.show import report, steps
from sgcd.show.escape_text import escape_text
from sgcd.show.plots.curves import build_curves
from sgcd.show.report import render_page
from sgcd.show.steps import load_token_decoder, pick_evenly, split_token_texts
from sgcd.storage.manifest import write_folder_manifest
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

Attributes = dict[str, str]
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Its elements with their attributes and all their text, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Attributes]] = []
        self.inside: list[list[str]] = [[]]
        self.texts: list[tuple[str, Attributes, str]] = []
        self.open: list[tuple[str, Attributes]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not any(name == "svg" for name, _ in self.open):
            self.open.append((tag, dict(attrs)))
            self.inside.append([])

    def handle_endtag(self, tag: str) -> None:
        if any(name == "svg" for name, _ in self.open) and tag != "svg":
            return
        assert self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1]}"
        text = "".join(self.inside.pop())
        self.texts.append((*self.open.pop(), text))
        self.inside[-1].append(text)

    def handle_data(self, data: str) -> None:
        self.inside[-1].append(data)

    def text(self, tag: str, **wanted: str) -> list[str]:
        told = {name.rstrip("_"): value for name, value in wanted.items()}
        return [text for name, own, text in self.texts if name == tag and told.items() <= own.items()]

    @property
    def all(self) -> str:
        return " ".join("".join(self.inside[0]).split())


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn runs have no tokenizer, but their words are known; and pictures have tests of their own."""
    monkeypatch.setattr(
        report, "load_token_decoder", lambda *_: (lambda ids: [drawn_runs.WORDS[i - 10] for i in ids.tolist()], "")
    )  # pyright: ignore
    monkeypatch.setattr(report, "build_curves", lambda *_: ([], []))  # pyright: ignore


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "build_curves", build_curves)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return drawn_runs.draw(tmp_path / "run")


def allowed(found: Page) -> dict[str, list[str]]:
    """The page's content security policy."""
    [policy] = [own["content"] for tag, own in found.elements if own.get("http-equiv") == "Content-Security-Policy"]
    return {part.split()[0]: part.split()[1:] for part in policy.split(";")}


@pytest.mark.usefixtures("pictures")
def test_the_page_runs_its_own_style_and_script_and_asks_for_nothing(folder: RunFolder) -> None:
    found = Page(render_page(folder))
    policy = allowed(found)
    assert policy["default-src"] == ["'none'"]
    assert not policy.keys() & {"connect-src", "font-src", "frame-src"}
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        [inline] = [text for name, own, text in found.texts if name == tag and "type" not in own]
        assert policy[rule] == [f"'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"]
    for tag, own in found.elements:
        assert "style" not in own, f"{tag}: inline style would be blocked"
        assert not any(name.startswith("on") for name in own)
        assert all(own.get(name, "#").startswith(("#", "data:")) for name in ("src", "href", "action", "data"))
    ids = [own["id"] for _, own in found.elements if "id" in own]
    unique = [name for name in ids if not re.fullmatch(r"[mp][0-9a-f]{8,}", name)]  # pictures share what they draw with
    assert len(unique) == len(set(unique))


@pytest.mark.usefixtures("pictures")
def test_the_same_folder_gives_the_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    first = report.write_report(folder.path)
    assert first == folder.path / "report.html"
    assert report.write_report(folder.path, out=tmp_path / "other.html").read_bytes() == first.read_bytes()


def test_tokens_are_coloured_and_their_numbers_lie_beside_them(folder: RunFolder) -> None:
    found = Page(render_page(folder))
    assert found.text("span", class_="k2 w9 p9 d8 s") == ["call"] * 2
    assert found.text("span", class_="k2 w9 n9 d8 s") == ["call"] * 2
    [numbers] = [json.loads(text) for name, own, text in found.texts if own.get("id") == "data" and name == "script"]
    cells = [own["data-of"] for tag, own in found.elements if tag == "td" and "data-of" in own]
    assert set(cells) == set(numbers) == {f"{step}.0.{column}" for step in (1, 2) for column in range(3)}
    assert numbers["1.0.0"]["weight"] == [1, 2, 1, 1.5, 1]
    [mode] = [own["id"] for tag, own in found.elements if tag == "input" and "checked" in own]
    assert mode == "by-weight"
    assert "checks : none ." in found.text("blockquote")
    assert "written by built-in from all 2 siblings, hash ab12" in found.all
    assert "Played but not learned from, all siblings succeeded: t-9 (2 of 2 succeeded)." in found.all


def test_without_features_weights_are_one_and_advantages_are_shown(tmp_path: Path) -> None:
    found = Page(render_page(drawn_runs.draw(tmp_path / "run", "grpo")))
    [mode] = [own["id"] for tag, own in found.elements if tag == "input" and "checked" in own]
    assert mode == "by-advantage"
    assert "In what is shown here every weight is one" in found.all
    assert "The reference, for the teacher alone" not in found.all, "the method asks for none"
    assert found.text("span", class_="k2 p9 s") == ["call", "b12"] * 4
    assert found.all.count("every W 1") == 4
    assert "by-divergence" not in [own.get("id") for _, own in found.elements]


def test_the_result_has_intervals_by_category(folder: RunFolder) -> None:
    found = Page(render_page(folder))
    rows = [" ".join(text.split()) for text in found.text("tr", class_="whole") + found.text("tr", class_="part")]
    assert [row[:12] for row in rows] == ["greedy, all8", "action4 .500", "information4"]
    assert rows[0].startswith("greedy, all8 .375 .137 to .694 .625 .306 to .863 +.250 ")


def test_why_there_is_no_reference_is_said(folder: RunFolder) -> None:
    folder = drop_checksums(folder.path)
    folder.write_references(1, [{"task": "t-1", "text": "", "cause": "writer: timed out after 60 s"}])
    folder.write_references(2, [])
    found = Page(render_page(folder))
    assert "There is none: writer: timed out after 60 s. Every weight is one." in found.all
    assert "None on record for this task: nothing was written down." in found.all


def test_an_invalid_run_says_so_in_big_letters(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing to complain of." in Page(render_page(folder)).all
    said = ["INVALID: weights are inert", "clip share 31 %"]
    monkeypatch.setattr(health, "run_warnings", lambda _: said)  # pyright: ignore
    found = Page(render_page(folder))
    [banner] = found.text("div", class_="invalid")
    assert banner == "INVALIDweights are inert"
    assert "clip share 31 %" in found.text("li")


def test_a_category_that_fell_is_named_on_the_page_and_at_the_end_of_training(folder: RunFolder) -> None:
    lost = [
        drawn_runs.trial(step, task, "sampled", (task % 2 == 1) == (step == 2) and task != 1)
        for step in (0, 2)
        for task in range(16)
    ]
    folder.append_evaluation(lost)
    fall = "action fell from 1.00 to .00 while the total fell (.50 to .44), dev tasks, sampled"
    page = render_page(folder)
    assert fall in Page(page).text("li")
    assert "action fell from <b>1.00</b> to <b>.00</b> while" in page
    [headline] = Page(page).text("p", class_="headline")
    assert headline.startswith("Success on held-out dev tasks (sampled) did not clearly change, from .50 to .44 (-.062")
    assert headline.endswith("): action fell from 1.00 to .00, information rose from .00 to .88.")
    assert fall in summarise_run(folder, "dev")["health"]


HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</style></pre></blockquote></table>",
    "<!--",
    "]]>&lt;&amp;",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "a\u202eb\u2066\x00\ud800\u200b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Page(render_page(drawn_runs.draw(tmp_path / "plain", tasks=("plain",))))
    monkeypatch.setattr(drawn_runs, "WORDS", [text, *drawn_runs.WORDS[1:]])
    monkeypatch.setattr(
        drawn_runs, "RECIPE", drawn_runs.RECIPE + "# " + text.encode(errors="replace").decode().replace("\0", "") + "\n"
    )
    said = {"role": "user", "content": text}
    real = drawn_runs.rollout

    def spoilt(sibling: int, success: bool, task: str = "", **changes: Any) -> Any:
        verdict = {} if "verdict" in changes else {"verdict": Verdict(0.0, success, {text: text, "state": True})}
        whole = {"messages": (said, said), **verdict, **changes}
        if "broken" in whole:
            whole["broken"] = text
        return real(sibling, success, task, **whole)

    monkeypatch.setattr(drawn_runs, "rollout", spoilt)
    folder = drawn_runs.draw(tmp_path / "spoilt", tasks=(text,))
    row = {"task": text, "text": text, "writer": text, "hash": text, "literals": [text]}
    folder.write_references(1, [row])
    folder.write_references(2, [{**row, "text": "", "cause": text}])
    row = {**drawn_runs.ROW, "step": 3, "skipped": text, "broken": 1, "causes": {text: 1}}
    folder.append_metrics(StepMetrics.from_json(row))
    folder.facts[text] = {text: text}
    html = render_page(folder)
    html.encode()
    found = Page(html)

    def skeleton(of: Page) -> set[tuple[str, tuple[str, ...]]]:
        return {(tag, tuple(sorted(own))) for tag, own in of.elements}

    assert skeleton(found) <= skeleton(plain) | {
        ("p", ("class",)),
        ("strong", ()),
        ("dd", ()),
        ("ul", ("class",)),
        ("li", ()),
    }
    assert [tag for tag, _ in found.elements].count("script") == 2
    shown = escape_text(text)
    assert shown in found.text("blockquote")[0]
    assert shown in found.text("dd")
    assert shown in found.text("b")
    assert any(shown in span for span in found.text("span", class_="k1 p7"))
    assert any(shown in concern for concern in found.text("li"))
    for hidden in "\u202e\u2066\x00\u200b":
        assert hidden not in html


def test_a_page_has_its_size_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn_runs.draw(tmp_path / "run", tasks=("t-1", "t-2", "t-3"))
    assert "would not fit" not in Page(render_page(folder)).all
    monkeypatch.setattr(
        steps, "MAX_PAGE_TOKENS", 2 * 35
    )  # two steps, each with room for two tasks of three times five tokens
    found = Page(render_page(folder))
    assert found.all.count("1 more task would not fit on the page.") == 2
    assert "A page holds at most about 70 tokens" in found.all
    monkeypatch.setattr(steps, "MAX_PAGE_TOKENS", 0)
    found = Page(render_page(folder, [2]))
    assert "2 more tasks would not fit on the page." in found.all
    assert len(found.text("details", class_="task")) == 1


def test_steps_are_chosen(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert pick_evenly([1], 4) == [1]
    assert pick_evenly(range(1, 101), 4) == [1, 34, 67, 100]
    assert main(["report", str(folder.path), "--step", "2"]) == 0
    assert capsys.readouterr().out == f"report: {folder.path}/report.html\n"
    found = Page((folder.path / "report.html").read_text(encoding="utf-8"))
    assert found.text("h3") == ["Step 2"]
    assert "Shown is step 2 of 2 on disk" in found.all
    assert main(["report", str(folder.path), "--step", "2", "1", "--out", str(folder.path / "b.html")]) == 0
    assert Page((folder.path / "b.html").read_text(encoding="utf-8")).text("h3") == ["Step 1", "Step 2"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["nowhere"], "nowhere: does not exist"),
        (["run", "--step", "7"], "no rollouts of step 7; this run has those of steps 1 to 2"),
        (["run", "--out", "no/where.html"], "the folder no does not exist"),
        (["run", "--step", "one"], "Invalid value for '--step'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    typed: list[str], said: str, folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path.parent)
    assert main(["report", *typed]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.usefixtures("pictures")
def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    found = Page(render_page(RunFolder.create(tmp_path / "run", drawn_runs.RECIPE, {})))
    assert "What was learned is not known: no held-out tasks were played." in found.all
    assert found.text("h2") == [
        *("Health", "Words on this page", "Recipe and facts", "Credit of each token"),
    ]
    assert "No step has been played yet." in found.all


def test_a_run_that_moved_nothing_says_so_and_shows_a_task_it_did_not_learn_from(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", drawn_runs.RECIPE, {})
    failed = Group(
        Task("t-9", "action", {}), (drawn_runs.rollout(0, False, "t-9"), drawn_runs.rollout(1, False, "t-9"))
    )
    at_open = {"response": np.array([], np.int32), "response_mask": np.array([], bool), "turns": (), "verdict": None}
    at_open |= {"token_kinds": np.array([], np.uint8), "sampling_logprobs": np.array([], np.float32)}
    never_begun = drawn_runs.rollout(0, False, "t-8", broken="open: OSError: no disk", end_reason="broken", **at_open)
    folder.write_rollouts(1, [failed, Group(Task("t-8", "action", {}), (), (never_begun,))], [False, False])
    changes = {"step": 1, "skipped": "no mixed group", "broken": 1, "causes": {"open: OSError: no disk": 1}}
    changes |= {"mixed": 0, "uniform_success": 0, "uniform_failure": 1, "rollouts": 3}
    folder.append_metrics(StepMetrics.from_json({**drawn_runs.ROW, **changes}))
    found = Page(render_page(folder))
    assert found.text("p", class_="headline")[0].startswith(
        "This run has no result: none of 1 step moved the policy: no mixed group (success .0 on all tasks); start with"
    )
    assert "Played but not learned from, all siblings failed: t-9 (0 of 2 succeeded)." in found.all
    assert "every sibling broke: t-8 (1 broken, the first by open: OSError: no disk)." in found.all
    assert "1 of 3 rollouts broke, 1 of them by open: OSError; the first text: open: OSError: no disk." in found.all
    assert "No credit is on record for what is shown here." in found.all
    assert len(found.text("details", class_="task")) == 1
    assert "call" in found.text("details", class_="task")[0], "what the policy wrote"
    folder = drop_checksums(folder.path)
    folder.write_rollouts(1, [Group(Task("t-8", "action", {}), (), (never_begun,))], [False])
    assert "⚠ broken" in Page(render_page(folder)).all


def test_an_evaluation_of_the_start_alone_is_no_result(folder: RunFolder) -> None:
    folder = drop_checksums(folder.path)
    (folder.path / "evaluation.jsonl").unlink()
    folder.append_evaluation([drawn_runs.trial(0, task, "greedy", task < 3) for task in range(8)])
    found = Page(render_page(folder))
    assert (
        "What was learned is not known yet: held-out dev tasks were evaluated at step 0 alone (success .375 "
        "[.137, .694] greedy)."
    ) in found.all
    assert "difference" not in found.text("thead")[0]


def test_a_step_that_was_stopped_before_its_credit_says_so(folder: RunFolder) -> None:
    folder = drop_checksums(folder.path)
    (folder.path / "credit" / "0002.safetensors").unlink()
    assert "no credit of this step is on record." in Page(render_page(folder)).all


def test_numbers_that_are_not_finite_leave_the_page_whole(folder: RunFolder) -> None:
    folder = drop_checksums(folder.path)
    wild = np.array([np.nan, np.inf, -np.inf, 0, 0, 0], np.float32)
    one = drawn_runs.scored(0.5)
    folder.write_credit(1, {"t-1/0": CreditRecord(one.credit, Features(wild, wild, wild)), "t-1/1": one})
    found = Page(render_page(folder, [1]))
    [numbers] = [text for _, own, text in found.texts if own.get("id") == "data"]
    strict = json.loads(numbers, parse_constant=pytest.fail)
    assert strict["1.0.1"]["divergence"][:3] == [None, None, None]


def test_tokens_share_a_character_but_it_is_shown_once() -> None:
    spans = np.array([[0, 1], [1, 2], [1, 2], [2, 4]])
    assert split_token_texts("a👍 b", spans) == ["a", "👍", "‥", " b"]


def test_words_come_from_the_tokenizer_in_the_folder(folder: RunFolder) -> None:
    spell, why = load_token_decoder(folder, [])
    assert why == "Tokens are shown as ids: the run has no checkpoint yet, and so no tokenizer"
    assert spell(np.array([4, 7], np.int32)) == [" 4", " 7"]
    from sgcd.lab.policy import build_lab_chat

    build_lab_chat().save(folder.policy_path)
    write_folder_manifest(folder.policy_path)
    spell, why = load_token_decoder(folder, [])
    assert why == ""
    ids = build_lab_chat().encode_policy_text("one moment please <call> find_user name mia </call>")
    assert "".join(spell(ids)) == "one moment please <call> find_user name mia </call>"
    (folder.policy_path / "tokenizer.json").write_text("{}")
    damage = list[str]()
    assert "no whole checkpoint" in load_token_decoder(folder, damage)[1]
    assert damage[0].startswith(f"{folder.policy_path}/tokenizer.json: is not as it was written")
    spell, why = load_token_decoder(drop_checksums(folder.path), [])
    assert why.startswith(f"Tokens are shown as ids: {folder.policy_path}")


def test_without_transformers_ids_stand_for_words(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.policy_path.mkdir()
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(report, "load_token_decoder", load_token_decoder)
    found = Page(render_page(folder))
    assert "Tokens are shown as ids: " in found.all
    assert found.text("span", class_="k2 w9 p9 d8 s") == ["11"] * 2
