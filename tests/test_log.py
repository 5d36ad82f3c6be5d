"""The generated tables of docs/log and docs/performance.md equal what their commands make of the kept figures."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS, LOG = ROOT / "docs", ROOT / "docs/log"


@pytest.fixture(scope="module")
def bench() -> Any:
    """The scripts, which import one another from their own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench/lab"))
        patch.syspath_prepend(str(ROOT / "bench/storage"))
        patch.syspath_prepend(str(ROOT / "bench"))
        return {
            name: import_module(name)
            for name in (
                "collapse",
                "damage",
                "learning",
                "performance",
                "performance_table",
                "starts",
                "stops",
                "study_page",
                "truth",
            )
        }


def between(script: Any) -> str:
    """The generated table on the page that the script writes; no other page of the log has its markers."""
    pages = [path for path in LOG.glob("*.md") if script.BEGIN in path.read_text(encoding="utf-8")]
    assert pages == [script.LOG_PATH]
    text = script.LOG_PATH.read_text(encoding="utf-8")
    assert text.count(script.BEGIN) == text.count(script.END) == 1
    return text.split(script.BEGIN)[1].split(script.END)[0].strip()


def test_the_index_names_every_page_and_none_is_long():
    pages = {path.name: path.read_text(encoding="utf-8") for path in LOG.glob("*.md")}
    named = set(re.findall(r"^\| \[([\w-]+\.md)\]", pages["README.md"], re.MULTILINE))
    assert named == pages.keys() - {"README.md"}
    assert max(len(text.splitlines()) for text in pages.values()) <= 120


@pytest.mark.parametrize(
    "page", [*LOG.glob("*.md"), DOCS / "decisions.md", DOCS / "contributing.md"], ids=lambda page: page.stem
)
def test_every_path_on_a_page_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    paths = re.findall(r"`((?:src|docs|tests|recipes|bench|\.ci)/[\w./-]*)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing + [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", ["collapse", "damage", "learning", "stops", "truth"])
def test_the_log_shows_the_figures(name: str, bench: Any):
    script = bench[name]
    assert between(script) == script.table(json.loads(script.RESULTS.read_text(encoding="utf-8")))


def test_the_log_shows_the_result_of_a_study(bench: Any):
    script = bench["study_page"]
    shown = (LOG / "control.md").read_text(encoding="utf-8").split(script.BEGIN)[1].split(script.END)[0]
    assert shown.strip() == script.study_table("control")


def test_the_log_shows_the_grid(bench: Any):
    script = bench["learning"]
    shown = script.LOG_PATH.read_text(encoding="utf-8").split(script.TUNING_BEGIN)[1].split(script.TUNING_END)[0]
    assert shown.strip() == script.tuning_table(json.loads(script.TUNING.read_text(encoding="utf-8")))


def test_the_log_shows_the_gates_of_the_starts_that_ship(bench: Any):
    assert between(bench["starts"]) == bench["starts"].table()


def test_the_page_of_performance_shows_the_figures(bench: Any):
    script = bench["performance"]
    kept = [script.read_json(file) for file in (script.RESULTS, script.PEERS, script.LATENCY)]
    assert script.PAGE.read_text(encoding="utf-8") == script.page(*kept)
    assert {f"B{number}" for number in (1, 2, 3, 4, 5)} <= kept[0].keys()


MACHINE = {"processor": "P", "cores": 2, "threads": 1, "cuda": None, "system": "S", "torch": "2", "trl": "1"}


def test_what_was_measured_apart_is_on_the_page_with_its_place(bench: Any):
    case = {"name": "SGCD over TRL's GRPO, time", "figure": 1.7, "target": 1.4, "least": False, "pass": False}
    size = {"vocabulary": 32_000, "written": 96, "seconds": {"SGCD": 1.234, "other": 2}, "bytes": {"SGCD": 5e6}}
    taken = {"machine": MACHINE, "date": "2026-01-02"}
    peers = {**taken, "rounds": 5, "sizes": [size], "B6": {"title": "a step", "cases": [case], "note": "So."}}
    mode = {"exposed": 0.0984, "wall": {"exposed": 0.14}, "calls": 38}
    latency = {
        **taken,
        "steps": 4,
        "mean": 1.0,
        "B8": {"target": 0.1, "lockstep": mode, "continuous": {**mode, "exposed": 0.2}},
    }
    told = bench["performance_table"].page({**taken, "rounds": 1, "tokens": 9}, peers, latency)
    place = "Measured on 2026-01-02: P, 2 cores, no GPU, S, torch 2, trl 1, threads: 1."
    assert told.count(place) == 2
    for line in (
        "| SGCD over TRL's GRPO, time | 1.7 | at most 1.4 | **miss** |",
        "The minimum of 5 rounds; the arms alternate. So.",
        "| SGCD, vocabulary 32,000, 96 written | 1.23 | 5 |",
        "| other, vocabulary 32,000, 96 written | 2.00 |  |",
        "| lockstep | 0.0984 | at most 0.1 | pass |",
        "| continuous | 0.2 | at most 0.1 | **miss** |",
    ):
        assert f"\n{line}\n" in told
    assert "4 steps, 38 and 38 calls of 1 s on average. By the difference of two walls 0.14 and 0.14." in told


def test_what_was_not_measured_apart_is_said_so(bench: Any):
    told = bench["performance_table"].page({"machine": MACHINE, "date": "", "rounds": 1, "tokens": 9}, None, None)
    assert told.count("| not measured |") == 6
    assert "`make peers-bench` measures it." in told
    assert "`make latency-bench` measures it." in told


def test_a_verdict_is_strict_and_no_amount_is_negative(bench: Any):
    cases = [
        {"name": "a", "figure": None, "target": 1.35, "least": False, "pass": None},
        {"name": "b", "figure": 1.5, "target": 1.25, "least": False, "pass": False},
        {"name": "c", "figure": 46.1, "target": 50, "least": True, "pass": True},
        {"name": "d", "figure": 50.0, "target": 50, "least": True, "pass": True},
        {"name": "e, GB", "figure": -4.9e-05, "target": 1, "least": False, "pass": True},
    ]
    told = bench["performance_table"].section("B0", {"title": "what it is", "cases": cases, "note": "so"})
    assert told[4:] == [
        "| a | not measured | at most 1.35 |  |",
        "| b | 1.5 | at most 1.25 | **miss** |",
        "| c | 46.1 | at least 50 | near |",
        "| d | 50 | at least 50 | pass |",
        "| e, GB | none measurable | at most 1 | pass |",
        "",
        "so",
        "",
    ]
