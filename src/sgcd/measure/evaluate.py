"""Play held-out tasks, greedily and sampled, and keep one row for each trial."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from json import dumps

from sgcd.act.environment import Cohort, Sampler, TaskSuite
from sgcd.act.rollout import play_rollout
from sgcd.act.settings import Limits
from sgcd.chat import Chat
from sgcd.measure.settings import EvaluationSettings
from sgcd.measure.trial_rows import TrialRow
from sgcd.records import Call, Rollout, Task
from sgcd.seeds import derive_seed
from sgcd.storage.atomic import SCHEMA

_MIN_LOOP_CALLS = 3
"""The same call this many times in a row is a loop."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One play of one held-out task.

    >>> Trial(Task("dev-1", "action", {}), mode="greedy", temperature=0.0, number=0).mode
    'greedy'
    """

    task: Task
    mode: str
    temperature: float
    number: int


async def evaluate_policy_tasks(
    stage: TaskSuite, chat: Chat, sampler: Sampler, limits: Limits, settings: EvaluationSettings, seed: int, step: int
) -> list[TrialRow]:
    """Every trial of the held-out tasks, in a fixed order, under the policy that `sampler` holds.

    The seed of a trial depends on the run's seed, the split, the task and the number of the trial, never on the step:
    evaluations of one run at different steps, and of runs with one seed, are paired trial by trial.
    """

    async def play_trial(trial: Trial, cohort: Cohort, index: int) -> TrialRow:
        rollout_seed = trial_seed(trial, settings, seed)
        session = cohort.session(index, rollout_seed)
        rollout = await play_rollout(
            trial.task, stage.environment_factory(), chat, session, limits, trial.number, rollout_seed
        )
        return trial_row(trial, rollout, settings, seed, step)

    rows: list[TrialRow] = []
    for trials in split_into_cohorts(list_trials(held_out_tasks(stage, settings), settings), sampler.slots):
        async with sampler.cohort(len(trials), trials[0].temperature) as cohort:
            rows += await asyncio.gather(*(play_trial(trial, cohort, index) for index, trial in enumerate(trials)))
    return rows


def trial_seed(trial: Trial, settings: EvaluationSettings, seed: int) -> int:
    return derive_seed(seed, "evaluation", settings.split, trial.task.id, trial.number)


def trial_row(trial: Trial, rollout: Rollout, settings: EvaluationSettings, seed: int, step: int) -> TrialRow:
    """Where a trial stands, and what came of it."""
    evaluation_columns = {"schema": SCHEMA, "seed": seed, "step": step, "split": settings.split}
    trial_columns = {"mode": trial.mode, "temperature": trial.temperature, "trial": trial.number}
    return {**evaluation_columns, **trial_columns, **rollout_row(rollout)}


def held_out_tasks(stage: TaskSuite, settings: EvaluationSettings) -> tuple[Task, ...]:
    """The tasks that the settings ask for."""
    return tuple(stage.splits.get(settings.split, ()))[: settings.tasks]


def list_trials(tasks: Sequence[Task], settings: EvaluationSettings) -> list[Trial]:
    """Greedy trials first, then the sampled ones; within a mode in the order of tasks."""
    greedy_trials = [Trial(task, "greedy", 0.0, 0) for task in tasks if settings.greedy]
    return greedy_trials + [
        Trial(task, "sampled", settings.temperature, number) for task in tasks for number in range(settings.trials)
    ]


def split_into_cohorts(trials: Sequence[Trial], slots: int) -> list[list[Trial]]:
    """Consecutive trials of one mode, at most `slots` together."""
    trials_by_mode = [list(mode_trials) for _, mode_trials in groupby(trials, key=lambda trial: trial.mode)]
    return [
        mode_trials[start : start + slots]
        for mode_trials in trials_by_mode
        for start in range(0, len(mode_trials), slots)
    ]


def rollout_row(rollout: Rollout) -> TrialRow:
    """What is measured of one rollout, held out or not: the part of a row that needs no evaluation around it."""
    return {
        "task": rollout.task,
        "category": rollout.category,
        "success": rollout.success,
        "reward": float(rollout.reward),
        "broken": rollout.broken,
        "calls": len(rollout.calls),
        "failed_calls": sum(call.is_error for call in rollout.calls),
        "malformed": sum(bool(turn.malformed) for turn in rollout.turns),
        "inexact": sum(not turn.roundtrips for turn in rollout.turns),
        "looping": is_looping(rollout),
        "turns": len(rollout.turns),
        "tokens": rollout.num_policy_tokens,
        "ending": rollout.end_reason,
    }


def is_looping(rollout: Rollout) -> bool:
    """Went round in circles: the same call (name and arguments) three times in a row, or no end within its turns."""
    call_keys = [call_key(call) for call in rollout.calls]
    longest_repeat = max((len(list(repeated)) for _, repeated in groupby(call_keys)), default=0)
    return longest_repeat >= _MIN_LOOP_CALLS or rollout.end_reason == "turn_limit"


def call_key(call: Call) -> str:
    """Two calls are the same when their names and arguments are, in whatever order the arguments stand."""
    return dumps([call.name, dict(call.arguments)], sort_keys=True, default=str)
