"""What one finished run of a study gives: success at each evaluation, and the tokens that it took."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgcd.measure.summary import summarise_evaluation
from sgcd.measure.trial_rows import select_evaluation
from sgcd.storage.metrics import StepMetrics
from sgcd.storage.run_folder import RunFolder
from sgcd.study.arms.plan import PlannedRun
from sgcd.study.arms.study_file import Outcome
from sgcd.study.arms.train_runs import is_finished


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Success on held-out tasks over the steps of a run: sampled, or greedy where nothing is sampled."""

    steps: tuple[int, ...]
    success: tuple[float, ...]
    tokens: tuple[int, ...]
    """Tokens sampled in training up to each of the steps."""
    categories: dict[str, tuple[float, float]]
    """Success of each category at the start and at the end."""
    seconds: float
    training: float = 0.0
    """Mean success of all rollouts that the run played to learn from: many more than an evaluation plays."""
    fell: bool = False
    """Whether success ended clearly below its start: the two intervals do not meet."""

    @property
    def start(self) -> float:
        return self.success[0]

    @property
    def end(self) -> float:
        return self.success[-1]

    @property
    def mean(self) -> float:
        """Over all evaluations after the start."""
        return float(np.mean(self.success[1:]))

    def compared(self, outcome: Outcome) -> float:
        """The number that a study compares."""
        return {"end": self.end, "mean": self.mean, "training": self.training}[outcome]

    def step_of(self, threshold: float) -> float | None:
        """The first step at which success reaches a threshold, linear between evaluations; None if it never does."""
        for index, value in enumerate(self.success):
            if value >= threshold:
                if index == 0:
                    return float(self.steps[0])
                low, steps = self.success[index - 1], self.steps[index - 1 : index + 1]
                return steps[0] + (threshold - low) / (value - low) * (steps[1] - steps[0])
        return None

    def success_at_tokens(self, tokens: float) -> float:
        """Success after this many generated tokens, linear between evaluations."""
        return float(np.interp(tokens, self.tokens, self.success))

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, without the time it took, which no two runs share."""
        fields = asdict(self)
        del fields["seconds"]
        return {**fields, "end": self.end, "mean": self.mean}


OutcomeByPath = dict[Path, RunOutcome]
"""The outcomes of a study by the folders of their runs; a run that is missing is not there."""


def read_outcomes(runs: Iterable[PlannedRun]) -> OutcomeByPath:
    outcomes = {run.path: read_outcome(run) for run in runs}
    return {path: outcome for path, outcome in outcomes.items() if outcome}


def read_outcome(run: PlannedRun) -> RunOutcome | None:
    """None where the run is not finished, or its evaluations measured nothing."""
    if not is_finished(run):
        return None
    folder, settings = RunFolder.open(run.path), run.recipe.evaluation
    rows = [row for row in folder.read_evaluations() if row["split"] == settings.split]
    mode = "sampled" if settings.trials else "greedy"
    steps = sorted({row["step"] for row in rows})
    summaries = [summarise_evaluation(select_evaluation(rows, settings.split, step))["modes"][mode] for step in steps]
    success = [summary["overall"]["value"] for summary in summaries]
    if len(steps) < 2 or any(value is None for value in success):
        return None
    metrics = folder.read_metrics()
    ends = [
        (name, part["value"], summaries[-1]["categories"][name]["value"])
        for name, part in summaries[0]["categories"].items()
    ]
    return RunOutcome(
        steps=tuple(steps),
        success=tuple(success),
        tokens=tuple(sum(row.tokens_sampled for row in metrics if row.step <= step) for step in steps),
        categories={name: (low, high) for name, low, high in ends if low is not None and high is not None},
        seconds=sum(row.seconds["total"] for row in metrics),
        training=mean_training_success(metrics),
        fell=summaries[-1]["overall"]["high"] < summaries[0]["overall"]["low"],
    )


def mean_training_success(metrics: Sequence[StepMetrics]) -> float:
    """Over all rollouts that did not break; zero where there are none."""
    played = [(row.success, row.rollouts - row.broken) for row in metrics if row.success is not None]
    return sum(success * count for success, count in played) / max(1, sum(count for _, count in played))
