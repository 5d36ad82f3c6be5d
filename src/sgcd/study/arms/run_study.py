"""Runs a study from its file to its result: tuning, the freeze, the fresh seeds, statistics, tables and pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgcd.show.arms.pictures import draw_study
from sgcd.show.arms.tables import render_markdown
from sgcd.storage.atomic import Row, write_atomic
from sgcd.storage.lock import lock_run
from sgcd.study.arms.freeze import freeze, read_frozen
from sgcd.study.arms.outcome import read_outcomes
from sgcd.study.arms.plan import PlannedRun, StudyPlan, check_arms
from sgcd.study.arms.result import build_result
from sgcd.study.arms.study_file import load_study
from sgcd.study.arms.train_runs import ReportLine, check_same_recipes, train_runs
from sgcd.study.arms.tune import choose_points


def run_study(path: Path, folder: Path, *, jobs: int, report: ReportLine) -> dict[str, Any]:
    """The result of a study, whose runs are trained as far as they are not finished yet. It is also in the folder."""
    plan = StudyPlan(load_study(path), path, folder)
    check_arms(plan)
    with lock_run(folder):
        frozen = read_frozen(plan)
        tuning_runs = plan.tuning_runs()
        if frozen is None:
            train_runs(tuning_runs, jobs, report)
            chosen = choose_points(plan, tuning_runs, read_outcomes(tuning_runs))
            check_same_recipes(plan.fresh_runs(chosen))
            frozen = freeze(plan, chosen)
        fresh_runs = plan.fresh_runs(frozen["chosen"])
        try:
            train_runs(fresh_runs, jobs, report)
        except KeyboardInterrupt:  # a stopped study leaves the result so far, with what is missing
            conclude(plan, frozen, tuning_runs, fresh_runs)
            raise
        return conclude(plan, frozen, tuning_runs, fresh_runs)


def conclude(
    plan: StudyPlan, frozen: Row, tuning_runs: Sequence[PlannedRun], fresh_runs: Sequence[PlannedRun]
) -> dict[str, Any]:
    """The result of the runs that are finished, also written into the folder."""
    found = read_outcomes([*tuning_runs, *fresh_runs])
    result = build_result(plan, frozen, found, tuning_runs=tuning_runs, fresh_runs=fresh_runs)
    write_result(plan.folder, result)
    return result


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """The result as JSON, Markdown, SVG and PNG."""
    write_atomic(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    pictures = draw_study(result)
    links = "".join(f"\n![{name.removesuffix('.svg')}]({name})\n" for name in pictures if name.endswith(".svg"))
    page = f"# {result['study']['title']}\n\n{render_markdown(result)}\n{links}"
    write_atomic(folder / "result.md", page.encode())
    for name, content in pictures.items():
        write_atomic(folder / name, content)
