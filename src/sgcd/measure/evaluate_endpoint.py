"""Evaluate a chat model behind an endpoint on the held-out tasks, with the trials, seeds and rows of a policy."""

import asyncio

from sgcd.act.cohort import gather_or_cancel
from sgcd.act.endpoint_player import EndpointPlayer, play_endpoint
from sgcd.act.environment import TaskSuite
from sgcd.act.settings import Limits
from sgcd.endpoint.client import Endpoint
from sgcd.measure.evaluate import Trial, held_out_tasks, list_trials, trial_row
from sgcd.measure.settings import EvaluationSettings, ModelSettings
from sgcd.measure.trial_rows import TrialRow
from sgcd.records import Rollout


async def evaluate_endpoint_model(
    task_suite: TaskSuite,
    endpoint: Endpoint,
    model: ModelSettings,
    *,
    limits: Limits,
    settings: EvaluationSettings,
    seed: int,
) -> list[tuple[TrialRow, Rollout]]:
    """Play every trial of the held-out tasks; returns its row and its rollout, in the order of a policy's evaluation.

    At most `model.concurrency` trials are played at once.
    """
    semaphore = asyncio.Semaphore(model.concurrency)

    async def play_trial(trial: Trial) -> tuple[TrialRow, Rollout]:
        player = EndpointPlayer(endpoint, None if model.temperature is None else trial.temperature)
        async with semaphore:
            environment = task_suite.environment_factory()
            rollout = await play_endpoint(trial.spec(settings, seed), environment, player, limits=limits)
        row = trial_row(trial, rollout, settings, seed=seed, step=0)
        return {**row, "model": model.model, "tokens": player.num_completion_tokens}, rollout

    trials = list_trials(held_out_tasks(task_suite, settings), settings)
    return await gather_or_cancel(play_trial(trial) for trial in trials)
