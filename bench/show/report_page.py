"""How long does the page of a run take: 64 rollouts of 4,000 tokens, built, opened in Chromium and clicked?

    python bench/show/report_page.py [--json]

Eight tasks with eight siblings of forty turns, half of which succeed; weights, divergences and texts are drawn. The
page is built as `sgcd report` builds it. It is opened from a file; a click opens the next task, and counts until the
browser has painted it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from helpers.browser import PROGRAM, Browser, browser
from sgcd.credit_records import Credit, CreditRecord, Features
from sgcd.records import Call, Group, Rollout, Task, Turn, Verdict
from sgcd.show.report import write_report
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder

NUM_TASKS, NUM_SIBLINGS, NUM_TURNS = 8, 8, 40
TOKENS_WRITTEN, TOKENS_READ = 75, 25
"""Of a turn: what the policy writes, and what the tool answers."""
LIMITS = {"built, s": 5.0, "size, MB": 5.0, "opened, s": 2.0, "click, ms": 100.0}
RECIPE = "version: 1\nsteps: 1\nmethod:\n  name: sgcd\nenvironment:\n  name: own\n"
TIME_OPENING = "performance.getEntriesByType('navigation')[0].loadEventEnd"
START_CLICK = """(() => {
    const task = document.querySelectorAll('details.task')[%d];
    const start = performance.now();
    window.painted = null;
    task.querySelector('summary').click();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now() - start; }));
})()"""


def make_rollout(task: int, sibling: int, rng: np.random.Generator) -> Rollout:
    size = TOKENS_WRITTEN + TOKENS_READ
    mask = np.tile(np.r_[np.ones(TOKENS_WRITTEN, bool), np.zeros(TOKENS_READ, bool)], NUM_TURNS)
    turns = tuple(
        Turn(size * n, size * n + TOKENS_WRITTEN, (Call("search", {"query": f"{n}"}),)) for n in range(NUM_TURNS)
    )
    messages: list[dict[str, Any]] = [{"role": "user", "content": "please put my bookings in order"}]
    for turn in range(NUM_TURNS):
        messages.append({"role": "assistant", "content": f"I look for booking {turn}"})
        messages.append({"role": "tool", "content": f"booking {rng.integers(1_000_000)} status delayed"})
    success = sibling % 2 == 0
    return Rollout(
        task=f"task-{task}",
        category="action",
        sibling=sibling,
        seed=sibling,
        prompt=np.array([1, 2], np.int32),
        reference_position=1,
        response=rng.integers(100, 50_000, size * NUM_TURNS).astype(np.int32),
        response_mask=mask,
        token_kinds=np.where(mask, 3, 0).astype(np.uint8),
        sampling_logprobs=np.zeros(size * NUM_TURNS, np.float32),
        turns=turns,
        messages=tuple(messages),
        tools=(),
        end_reason="answered",
        verdict=Verdict(float(success), success),
    )


def make_run(path: Path) -> RunFolder:
    rng = np.random.default_rng(0)
    folder = RunFolder.create(path, RECIPE, {"seed": 0, "machine": {}})
    groups = [
        Group(Task(f"task-{task}", "action", {}), tuple(make_rollout(task, n, rng) for n in range(NUM_SIBLINGS)))
        for task in range(NUM_TASKS)
    ]
    folder.write_rollouts(1, groups, [True] * NUM_TASKS)
    records: dict[str, CreditRecord] = {}
    for group in groups:
        for rollout in group.rollouts:
            size = len(rollout.response)
            weight = np.where(rng.random(size) < 0.1, 1 + 2 * rng.random(size), 1).astype(np.float32)
            features = Features(*(rng.random(size).astype(np.float32) for _ in range(3)))
            advantage = 0.5 if rollout.success else -0.5
            credit = Credit(advantage, weight, cap=3.0)
            records[f"{rollout.task}/{rollout.sibling}"] = CreditRecord(
                credit, features, rollout.response_mask, features.divergence
            )
    folder.write_credit(1, records)
    folder.append_metrics(StepMetrics(step=1, tasks=NUM_TASKS, mixed=NUM_TASKS, rollouts=len(records)))
    return folder


def measure_browser(page: Path, opened: Browser) -> dict[str, float]:
    opened.look(1280, 900)
    opened.open(page)
    seconds = opened.run(TIME_OPENING) / 1000
    clicks: list[float] = []
    for index in range(opened.run("document.querySelectorAll('details.task').length")):
        opened.run(START_CLICK % index)
        while (milliseconds := opened.run("window.painted")) is None:
            time.sleep(0.005)
        clicks.append(milliseconds)
    return {"opened, s": seconds, "click, ms": median(clicks)}


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = make_run(Path(name) / "run")
        start = time.perf_counter()
        page = write_report(folder.path)
        found = {"built, s": time.perf_counter() - start, "size, MB": page.stat().st_size / 1e6}
        if PROGRAM:
            with browser(Path(name) / "browser") as opened:
                found |= measure_browser(page, opened)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    for name, limit in LIMITS.items():
        value = found.get(name)
        verdict = "not measured: no Chromium" if value is None else "pass" if value <= limit else "miss"
        print(f"{name:<10} {'-' if value is None else f'{value:.2f}':>8}  at most {limit:g}  {verdict}")


if __name__ == "__main__":
    main()
