"""Play held-out tasks, greedily and sampled, and keep one row for each trial."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from json import dumps

from sgcd.act.environment import Cohort, Sampler, Stage
from sgcd.act.rollout import play, seed_of
from sgcd.act.settings import Limits
from sgcd.chat import Chat
from sgcd.measure.rows import SCHEMA, Row
from sgcd.measure.settings import EvaluationSettings
from sgcd.records import Call, Rollout, Task

LOOP = 3
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


async def evaluate(
    stage: Stage, chat: Chat, sampler: Sampler, limits: Limits, settings: EvaluationSettings, seed: int, step: int
) -> list[Row]:
    """Every trial of the held-out tasks, in a fixed order, under the policy that `sampler` holds.

    The seed of a trial depends on the run's seed, the split, the task and the number of the trial, never on the step:
    evaluations of one run at different steps, and of runs with one seed, are paired trial by trial.
    """

    async def one(trial: Trial, cohort: Cohort, index: int) -> Row:
        own = seed_of_trial(trial, settings, seed)
        session = cohort.session(index, own)
        rollout = await play(trial.task, stage.environment(), chat, session, limits, trial.number, own)
        return row_of(trial, rollout, settings, seed, step)

    rows: list[Row] = []
    for trials in cohorts(plan(held_out(stage, settings), settings), sampler.slots):
        async with sampler.cohort(len(trials), trials[0].temperature) as cohort:
            rows += await asyncio.gather(*(one(trial, cohort, index) for index, trial in enumerate(trials)))
    return rows


def seed_of_trial(trial: Trial, settings: EvaluationSettings, seed: int) -> int:
    return seed_of(seed, "evaluation", settings.split, trial.task.id, trial.number)


def row_of(trial: Trial, rollout: Rollout, settings: EvaluationSettings, seed: int, step: int) -> Row:
    """Where a trial stands, and what came of it."""
    place = {"schema": SCHEMA, "seed": seed, "step": step, "split": settings.split}
    how = {"mode": trial.mode, "temperature": trial.temperature, "trial": trial.number}
    return {**place, **how, **outcome(rollout)}


def held_out(stage: Stage, settings: EvaluationSettings) -> tuple[Task, ...]:
    """The tasks that the settings ask for."""
    return tuple(stage.splits.get(settings.split, ()))[: settings.tasks]


def plan(tasks: Sequence[Task], settings: EvaluationSettings) -> list[Trial]:
    """Greedy trials first, then the sampled ones; within a mode in the order of tasks."""
    greedy = [Trial(task, "greedy", 0.0, 0) for task in tasks if settings.greedy]
    return greedy + [
        Trial(task, "sampled", settings.temperature, number) for task in tasks for number in range(settings.trials)
    ]


def cohorts(trials: Sequence[Trial], slots: int) -> list[list[Trial]]:
    """Consecutive trials of one mode, at most `slots` together."""
    modes = [list(same) for _, same in groupby(trials, key=lambda trial: trial.mode)]
    return [same[at : at + slots] for same in modes for at in range(0, len(same), slots)]


def outcome(rollout: Rollout) -> Row:
    """What is measured of one rollout, held out or not: the part of a row that needs no evaluation around it."""
    return {
        "task": rollout.task,
        "category": rollout.category,
        "success": rollout.success,
        "reward": float(rollout.reward),
        "broken": rollout.broken,
        "calls": len(rollout.calls),
        "failed_calls": sum(call.failed for call in rollout.calls),
        "malformed": sum(bool(turn.malformed) for turn in rollout.turns),
        "inexact": sum(not turn.exact for turn in rollout.turns),
        "looping": looping(rollout),
        "turns": len(rollout.turns),
        "tokens": rollout.written,
        "ending": rollout.ending,
    }


def looping(rollout: Rollout) -> bool:
    """Went round in circles: the same call (name and arguments) three times in a row, or no end within its turns."""
    keys = [same_call(call) for call in rollout.calls]
    longest = max((len(list(same)) for _, same in groupby(keys)), default=0)
    return longest >= LOOP or rollout.ending == "turn_limit"


def same_call(call: Call) -> str:
    """Two calls are the same when their names and arguments are, in whatever order the arguments stand."""
    return dumps([call.name, dict(call.arguments)], sort_keys=True, default=str)
