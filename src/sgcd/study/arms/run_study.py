"""Runs a study from its file to its result: tuning, the freeze, the fresh seeds, statistics, tables and pictures."""

from pathlib import Path
from typing import Any

from sgcd.storage.lock import lock_run
from sgcd.study.arms.freeze import freeze, read_frozen
from sgcd.study.arms.plan import StudyPlan, check_arms
from sgcd.study.arms.study_file import load_study
from sgcd.study.arms.train_runs import ReportLine, check_same_recipes, train_runs
from sgcd.study.arms.tune import choose_points


def run_study(path: Path, folder: Path, *, jobs: int, report: ReportLine) -> dict[str, Any]:
    """The result of a study, whose runs are trained as far as they are not finished yet."""
    plan = StudyPlan(load_study(path), path, folder)
    check_arms(plan)
    with lock_run(folder):
        frozen = read_frozen(plan)
        tuning_runs = plan.tuning_runs()
        if frozen is None:
            train_runs(tuning_runs, jobs, report)
            chosen = choose_points(plan, tuning_runs)
            check_same_recipes(plan.fresh_runs(chosen))
            frozen = freeze(plan, chosen)
        fresh_runs = plan.fresh_runs(frozen["chosen"])
        train_runs(fresh_runs, jobs, report)
        return {}
