"""Chooses each arm's point of the grid: the best mean of success among the points that never break."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgcd.errors import StudyError
from sgcd.study.arms.outcome import OutcomeByPath, RunOutcome
from sgcd.study.arms.plan import PlannedRun, StudyPlan, describe_point
from sgcd.study.arms.study_file import Keys, Outcome, Study
from sgcd.study.arms.train_runs import read_crash

_ADVICE = "expected one at which no seed ends below its start; add smaller learning rates"


def choose_points(plan: StudyPlan, runs: Sequence[PlannedRun], outcomes: OutcomeByPath) -> dict[str, Keys]:
    """The chosen keys of each arm; none where the study tunes nothing."""
    if plan.study.tuning is None:
        return {}
    chosen: dict[str, Keys] = {}
    for arm in plan.study.arms:
        points = {describe_point(point): point for point in plan.points()}
        rows = [row for row in summarise_points(plan.study, runs, outcomes) if row["arm"] == arm and not row["breaks"]]
        if not rows:
            crash = next((line for run in runs if run.arm == arm and (line := read_crash(run))), "")
            raise StudyError(
                f"{plan.path}: tuning: {arm} breaks at every point of the grid; "
                + (f"it crashed: {crash}" if crash else _ADVICE)
            )
        chosen[arm] = points[max(rows, key=lambda row: row["mean"])["point"]]
    return chosen


def summarise_points(study: Study, runs: Sequence[PlannedRun], outcomes: OutcomeByPath) -> list[dict[str, Any]]:
    """Every arm at every point: mean of success over a whole run, over seeds; and whether it breaks.

    A point breaks if one of its seeds crashed or ends clearly below its start, so that the two intervals do not meet.
    Such a point lies at the edge, and is excluded.
    """
    measure: Outcome = "training" if study.outcome == "training" else "mean"
    by_point: dict[tuple[str, str], list[RunOutcome | None]] = {}
    for run in runs:
        by_point.setdefault((run.arm, run.point), []).append(outcomes.get(run.path))
    rows: list[dict[str, Any]] = []
    for (arm, point), found in by_point.items():
        finished = [outcome for outcome in found if outcome]
        breaks = len(finished) < len(found) or any(outcome.fell for outcome in finished)
        means = [outcome.compared(measure) for outcome in finished]
        rows.append(
            {
                "arm": arm,
                "point": point,
                "mean": float(np.mean(means)) if means else None,
                "seeds": means,
                "breaks": breaks,
            }
        )
    return rows
