"""Held-out tasks played with a model that is no policy: the same trials, seeds and rows."""

import asyncio

from sgcd.act.endpoint_player import EndpointPlayer, play_endpoint
from sgcd.act.environment import TaskSuite
from sgcd.act.settings import Limits
from sgcd.endpoint.client import Endpoint
from sgcd.measure.evaluate import Trial, held_out_tasks, list_trials, trial_row, trial_seed
from sgcd.measure.settings import EvaluationSettings, ModelSettings
from sgcd.measure.trial_rows import TrialRow
from sgcd.records import Rollout


async def evaluate_endpoint_model(
    stage: TaskSuite,
    endpoint: Endpoint,
    model: ModelSettings,
    limits: Limits,
    settings: EvaluationSettings,
    seed: int,
) -> list[tuple[TrialRow, Rollout]]:
    """Every trial of the held-out tasks, in the order of a policy's evaluation, and what was said in each.

    As many are played at once as calls may be in flight.
    """
    semaphore = asyncio.Semaphore(model.concurrency)

    async def play_trial(trial: Trial) -> tuple[TrialRow, Rollout]:
        temperature = None if model.temperature is None else trial.temperature
        player = EndpointPlayer(endpoint, temperature, trial_seed(trial, settings, seed))
        async with semaphore:
            rollout = await play_endpoint(trial.task, stage.environment_factory(), player, limits, trial.number)
        row = trial_row(trial, rollout, settings, seed, 0)
        return {**row, "model": model.model, "tokens": player.num_completion_tokens}, rollout

    return list(
        await asyncio.gather(*(play_trial(trial) for trial in list_trials(held_out_tasks(stage, settings), settings)))
    )
