"""Plays held-out tasks with a policy or with a model behind an endpoint; one row per trial."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from json import dumps

from sgcd.act.endpoint_player import EndpointPlayer, play_endpoint
from sgcd.act.environment import TaskSuite
from sgcd.act.recorder import RolloutRecorder
from sgcd.act.settings import Limits
from sgcd.act.siblings import PlayContext, gather_or_cancel, play_cohort
from sgcd.endpoint.client import Endpoint
from sgcd.measure.settings import EvaluationSettings, ModelSettings
from sgcd.measure.trial_rows import TrialRow
from sgcd.records import Call, Rollout, Task
from sgcd.seeds import derive_seed
from sgcd.storage.atomic import SCHEMA

_MIN_LOOP_CALLS = 3
"""The same call this many times in a row counts as a loop."""


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

    def recorder(self, settings: EvaluationSettings, seed: int) -> RolloutRecorder:
        """The rollout to play; its seed depends on the run's seed, the split, the task and the number of the trial."""
        rollout_seed = derive_seed(seed, "evaluation", settings.split, self.task.id, self.number)
        return RolloutRecorder(self.task, self.number, rollout_seed)


SelectTrials = Callable[[Sequence[Trial]], Sequence[Trial]]
"""Leaves of some trials those that are still to be played."""


async def evaluate_policy(
    context: PlayContext,
    settings: EvaluationSettings,
    *,
    seed: int,
    step: int,
    select_trials: SelectTrials = list,
    on_trials: Callable[[Sequence[tuple[TrialRow, Rollout]]], None] | None = None,
) -> list[TrialRow]:
    """Play every trial of the held-out tasks, or those that `select_trials` leaves of each cohort, in a fixed order;
    returns one row per trial. `on_trials` gets rows and rollouts as soon as a cohort ends.

    The seed of a trial depends on the run's seed, the split, the task and the number of the trial, never on the step:
    evaluations of one run at different steps, and of runs with one seed, are paired trial by trial.
    """
    rows: list[TrialRow] = []
    trials = list_trials(held_out_tasks(context.task_suite, settings), settings)
    for whole_cohort in split_into_cohorts(trials, context.sampler.slots):
        cohort = select_trials(whole_cohort)
        if not cohort:
            continue
        recorders = [trial.recorder(settings, seed) for trial in cohort]
        rollouts = await play_cohort(recorders, context, temperature=cohort[0].temperature)
        played = [
            (trial_row(trial, rollout, settings, seed=seed, step=step), rollout)
            for trial, rollout in zip(cohort, rollouts, strict=True)
        ]
        if on_trials:
            on_trials(played)
        rows += [row for row, _ in played]
    return rows


def trial_row(trial: Trial, rollout: Rollout, settings: EvaluationSettings, *, seed: int, step: int) -> TrialRow:
    """The row of one trial: which trial it is, and how it ended."""
    evaluation_columns = {"schema": SCHEMA, "seed": seed, "step": step, "split": settings.split}
    trial_columns = {"mode": trial.mode, "temperature": trial.temperature, "trial": trial.number}
    floor = {} if trial.task.floor is None else {"floor": trial.task.floor}
    scenario = {} if trial.task.scenario is None else {"scenario": trial.task.scenario}
    return {**evaluation_columns, **trial_columns, **rollout_row(rollout), **floor, **scenario, **test_columns(rollout)}


def test_columns(rollout: Rollout) -> TrialRow:
    """How many tests the verifier has for the task, and how many passed, where it says so."""
    if rollout.verdict is None or "tests" not in rollout.verdict.facts:
        return {}
    return {name: rollout.verdict.facts[name] for name in ("tests", "tests_passed")}


def held_out_tasks(task_suite: TaskSuite, settings: EvaluationSettings) -> tuple[Task, ...]:
    """The tasks of the split that is evaluated, at most `settings.tasks`."""
    return tuple(task_suite.splits.get(settings.split, ()))[: settings.tasks]


def list_trials(tasks: Sequence[Task], settings: EvaluationSettings) -> list[Trial]:
    """Greedy trials first, then the sampled ones; within a mode in the order of tasks."""
    greedy_trials = [Trial(task, "greedy", 0.0, 0) for task in tasks if settings.greedy]
    return greedy_trials + [
        Trial(task, "sampled", settings.temperature, number) for task in tasks for number in range(settings.trials)
    ]


def split_into_cohorts(trials: Sequence[Trial], slots: int) -> list[list[Trial]]:
    """Split trials into cohorts of one mode and at most `slots` trials."""
    trials_by_mode = [list(mode_trials) for _, mode_trials in groupby(trials, key=lambda trial: trial.mode)]
    return [
        mode_trials[start : start + slots]
        for mode_trials in trials_by_mode
        for start in range(0, len(mode_trials), slots)
    ]


def rollout_row(rollout: Rollout) -> TrialRow:
    """The columns of a row that depend on the rollout alone; also computed for training rollouts."""
    return {
        "task": rollout.task,
        "category": rollout.category,
        "needs_tool": rollout.needs_tool,
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
        "tokens_read": len(rollout.prompt) + len(rollout.response) - rollout.num_policy_tokens,
        "ending": rollout.end_reason,
    }


def is_looping(rollout: Rollout) -> bool:
    """Whether the same call (name and arguments) came three times in a row, or the turns ran out."""
    call_keys = [call_key(call) for call in rollout.calls]
    longest_repeat = max((len(list(repeated)) for _, repeated in groupby(call_keys)), default=0)
    return longest_repeat >= _MIN_LOOP_CALLS or rollout.end_reason == "turn_limit"


def call_key(call: Call) -> str:
    """A key that two calls share when their names and arguments are equal, in any order of the arguments."""
    return dumps([call.name, dict(call.arguments)], sort_keys=True, default=str)


async def evaluate_endpoint_model(
    task_suite: TaskSuite,
    endpoint: Endpoint,
    model: ModelSettings,
    *,
    limits: Limits,
    settings: EvaluationSettings,
    seed: int,
    select_trials: SelectTrials = list,
    on_trial: Callable[[TrialRow, Rollout], None] | None = None,
) -> list[tuple[TrialRow, Rollout]]:
    """Play every trial of the held-out tasks, or those that `select_trials` leaves; returns its row and its rollout,
    in the order of a policy's evaluation. `on_trial` gets both as soon as a trial ends.

    At most `model.concurrency` trials are played at once.
    """
    semaphore = asyncio.Semaphore(model.concurrency)

    async def play_trial(trial: Trial) -> tuple[TrialRow, Rollout]:
        player = EndpointPlayer(endpoint, None if model.temperature is None else trial.temperature)
        async with semaphore:
            environment = task_suite.environment_factory()
            rollout = await play_endpoint(trial.recorder(settings, seed), environment, player, limits=limits)
        row = trial_row(trial, rollout, settings, seed=seed, step=0)
        counted = {"tokens": player.num_completion_tokens, "tokens_read": player.num_prompt_tokens}
        row = {**row, "model": model.model, **counted}
        if on_trial:
            on_trial(row, rollout)
        return row, rollout

    trials = select_trials(list_trials(held_out_tasks(task_suite, settings), settings))
    return await gather_or_cancel(play_trial(trial) for trial in trials)
